"""Publication: numbers, classes and centroids in one transaction."""

import threading

import numpy as np
import pytest
import torch
from sqlalchemy import func, select

from app import ids
from app.methods.base import Centroid, Head, Snapshot
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.services.datasets import features
from app.services.models import models, publish, snapshots
from app.services.models.publish import Draft
from app.tables import Centroid as CentroidRow
from app.tables import ModelClass, Version
from app.vault import new_key
from tests.services.learning import WIDTH, a_model


@pytest.fixture
def model(service, caller):
    return a_model(service, caller)


def a_draft(service, model, tenant, names):
    names = tuple(sorted(names))
    head = Head(torch.ones(len(names), WIDTH), torch.zeros(len(names)), normalise=True)
    snapshot = Snapshot(
        InputSpec(kind="vector", shape=(WIDTH,)),
        "normalised",
        NetworkSpec(name="identity"),
        classes=names,
        head=head,
        centroids={name: Centroid(np.arange(WIDTH), 2) for name in names},
    )
    key_id = ids.new()
    saved = snapshots.save(service, snapshot, trained_network=False, key=new_key())
    service.vault.write_key(key_id, saved.key)
    with service.db.begin() as session:
        feature_map = features.map_of(session, models.get(session, tenant.id, model.id), None)
    return Draft(
        id=ids.new(),
        model_id=model.id,
        tenant_id=tenant.id,
        snapshot=snapshot,
        saved=saved,
        key_id=key_id,
        method="test",
        params={},
        feature_map_id=feature_map,
    )


def insert(service, tenant, draft):
    with service.db.begin() as session:
        row = models.get(session, tenant.id, draft.model_id, lock=True)
        return publish.insert(service, session, row, draft, "test")


def count(service, table):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_numbers_versions_that_are_published_at_once_without_gaps(service, tenant, model):
    drafts = [a_draft(service, model, tenant, ["ant", name]) for name in ("bee", "cat", "dog", "elk")]
    failures = []

    def run(draft):
        try:
            insert(service, tenant, draft)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(draft,)) for draft in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with service.db.read() as session:
        numbers = session.scalars(select(Version.number).filter_by(model_id=model.id)).all()
        names = session.scalars(select(ModelClass.name).filter_by(model_id=model.id)).all()
    assert sorted(numbers) == [1, 2, 3, 4]
    assert sorted(names) == ["ant", "bee", "cat", "dog", "elk"]


def test_leaves_nothing_of_a_transaction_that_fails(service, tenant, model):
    draft = a_draft(service, model, tenant, ["ant", "bee"])

    def fail():
        with service.db.begin() as session:
            row = models.get(session, tenant.id, model.id, lock=True)
            publish.insert(service, session, row, draft, "test")
            raise RuntimeError("the machine stops here")

    with pytest.raises(RuntimeError):
        fail()
    assert [count(service, table) for table in (Version, ModelClass, CentroidRow)] == [0, 0, 0]
    assert insert(service, tenant, draft).number == 1


def test_keeps_centroids_as_ciphertext_under_the_versions_key(service, tenant, model):
    draft = a_draft(service, model, tenant, ["ant", "bee"])
    insert(service, tenant, draft)
    plain = np.arange(WIDTH).astype("<i8").tobytes()
    with service.db.read() as session:
        rows = session.scalars(select(CentroidRow)).all()
    key = service.vault.key(draft.key_id)
    for row in rows:
        assert row.key_id == draft.key_id
        assert plain not in row.ciphertext
        assert service.vault.open_value(row.ciphertext, key, row.id) == plain
    assert len({row.ciphertext for row in rows}) == 2
