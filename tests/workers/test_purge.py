"""Purges: keys, files and rows are gone, tombstones and lineage stay, a restart goes on where it stopped."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import func, select

from app.errors import ArtifactCorrupt, Purged
from app.services.datasets import datasets, shards
from app.services.erasure import purges
from app.services.models import models
from app.services.scheduler import Scheduler
from app.tables import (
    AuditEvent,
    Centroid,
    Dataset,
    FeatureMap,
    ForgetItem,
    Job,
    JobEvent,
    ModelClass,
    Sample,
    SampleSubject,
    Shard,
    Version,
    VersionDataset,
)
from tests.services.asking import ask
from tests.services.learning import a_dataset, a_model, learn, rows, run_next, submit
from tests.services.sent import send
from workers import learn as learning
from workers import update


@pytest.fixture
def stack():
    return "embedded"


@pytest.fixture
def dataset(service, caller):
    """Twelve rows with a person each, in one shard as sent."""
    labels = rows(ant=6, bee=6)
    return send(service, caller, x=[[i, 1, 2, 3] for i in range(12)], label=labels, subject=labels)


def count(service, table, **which):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(table).filter_by(**which))


def stored(service):
    """Ids of all files and keys."""
    folders = (service.settings.objects_dir, service.settings.keys_dir)
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_nothing_of_a_deleted_dataset_is_left_but_a_tombstone(service, caller):
    before = stored(service)
    dataset = send(service, caller, x=[[1.0], [2.0]], label=["ant", "bee"], subject=["ann", "bob"])

    job = datasets.remove(service, caller, dataset.id)
    done = run_next(service)

    assert (done.id, done.state, done.result) == (job.id, "succeeded", {"shards": 1})
    assert stored(service) == before
    assert [count(service, table) for table in (Shard, Sample, SampleSubject)] == [0, 0, 0]
    with service.db.read() as session:
        tombstone = session.get_one(Dataset, dataset.id)
    assert (tombstone.name, tombstone.classes, tombstone.report) == ("", {}, {})
    assert (tombstone.rows, tombstone.train_rows, tombstone.eval_rows) == (2, 0, 0)
    assert count(service, AuditEvent, action="dataset.purged") == 1


def test_features_go_with_their_dataset_and_versions_stay(service, caller, dataset):
    version = learn(service, caller, a_model(service, caller), [dataset])
    assert count(service, Shard) == 2

    datasets.remove(service, caller, dataset.id)
    run_next(service)

    assert count(service, Shard) == 0
    assert count(service, VersionDataset, dataset_id=dataset.id) == 1
    assert service.vault.key(version.key_id).key


def test_persons_stay_while_a_version_that_used_them_does(service, caller, dataset):
    model = a_model(service, caller)
    learn(service, caller, model, [dataset])
    datasets.remove(service, caller, dataset.id)
    run_next(service)
    assert count(service, SampleSubject) == 12

    models.remove(service, caller, model.id, lambda revision: None)
    run_next(service)

    assert [count(service, table) for table in (Sample, SampleSubject)] == [0, 0]


def test_a_purge_that_was_interrupted_goes_on(service, caller, monkeypatch):
    monkeypatch.setattr("app.intake.rows.BLOCK_ROWS", 5)
    monkeypatch.setattr("app.services.erasure.purges.AT_ONCE", 3)
    before = stored(service)
    dataset = send(service, caller, x=[[float(i)] for i in range(50)])
    datasets.remove(service, caller, dataset.id)
    told = []

    def killed(fraction):
        told.append(fraction)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purges.purge_dataset(service, dataset.id, killed)
    assert count(service, Shard) == 4

    assert run_next(service).state == "succeeded"
    assert stored(service) == before


def test_a_purge_may_run_twice(service, caller, dataset):
    datasets.remove(service, caller, dataset.id)
    run_next(service)

    assert purges.purge_dataset(service, dataset.id, lambda fraction: None) == 0


def test_a_purged_dataset_cannot_be_read(service, caller, dataset):
    with service.db.read() as session:
        shard = session.scalars(select(Shard)).one()
    datasets.remove(service, caller, dataset.id)
    run_next(service)

    with pytest.raises(Purged):
        list(shards.read(service, dataset.id))
    with pytest.raises(ArtifactCorrupt):
        service.vault.key(shard.key_id)


def test_other_datasets_are_left_alone(service, caller, dataset):
    other = a_dataset(service, caller.tenant_id, rows(ant=9, bee=9))
    datasets.remove(service, caller, dataset.id)
    run_next(service)

    assert sum(len(block) for block in shards.read(service, other.id)) == 18


def test_a_deleted_model_leaves_numbers_and_lineage(service, caller, dataset):
    model = a_model(service, caller)
    before = stored(service)
    version = learn(service, caller, model, [dataset])
    features = {shard.file_id.hex for shard in _grid(service)} | {
        shard.key_id.hex for shard in _grid(service)
    }

    models.remove(service, caller, model.id, lambda revision: None)
    done = run_next(service)

    assert (done.state, done.result) == ("succeeded", {"versions": 1})
    assert stored(service) == before | features  # of the identity, which other models share
    assert count(service, Centroid) == 0
    with service.db.read() as session:
        left = session.get_one(Version, version.id)
        names = session.scalars(select(ModelClass.name)).all()
    assert (left.state, left.number, left.metrics) == ("purged", 1, {})
    assert left.purged_at is not None
    assert not {"ant", "bee"} & set(names)


def test_a_deleted_model_leaves_no_name_of_a_class_with_its_jobs(service, caller, dataset):
    model, other = a_model(service, caller), a_model(service, caller)
    kept = learn(service, caller, other, [dataset])
    learn(service, caller, model, [dataset])
    clash = a_dataset(service, caller.tenant_id, rows(ant=3))
    submit(service, caller, model, [clash], on_conflict="extend")
    with service.db.begin() as session:  # which the claim then refuses by name
        queued = session.scalars(select(Job).filter_by(model_id=model.id, state="queued")).one()
        queued.request = {**queued.request, "on_conflict": "reject"}
    failed = run_next(service)
    assert (failed.state, "ant" in failed.error["detail"]) == ("failed", True)

    models.remove(service, caller, model.id, lambda revision: None)
    assert run_next(service).state == "succeeded"

    with service.db.read() as session:
        jobs = session.scalars(select(Job).filter_by(model_id=model.id, kind="update")).all()
        told = session.scalars(select(JobEvent).where(JobEvent.job_id.in_([job.id for job in jobs]))).all()
        spared = session.get_one(Job, kept.job_id)
    said = [job.result for job in jobs] + [job.error for job in jobs] + [line.data for line in told]
    assert not any(name in json.dumps(one) for one in said for name in ("ant", "bee"))
    done, refused = sorted(jobs, key=lambda job: job.created_at)
    assert (done.result["version"], done.result["metrics"]) == (1, {})
    assert refused.error["cause"] == "invalid-input"
    assert spared.result["classes_added"] == ["ant", "bee"]


def test_features_of_a_network_go_with_the_model_that_trained_it(service, caller, dataset):
    model = a_model(service, caller, network={"name": "mlp", "params": {"hidden": [8]}})
    before = stored(service)
    learn(service, caller, model, [dataset], method="supervised", params={"epochs": 1})
    assert count(service, FeatureMap) == 1
    assert len(_grid(service)) == 1

    models.remove(service, caller, model.id, lambda revision: None)
    run_next(service)

    assert _grid(service) == []
    assert stored(service) == before


def _grid(service):
    with service.db.read() as session:
        return session.scalars(select(Shard).where(Shard.feature_map_id.is_not(None))).all()


def deleted_while_it_computes(service, caller, dataset, monkeypatch, then=lambda: None):
    """Run an update of the dataset, which is deleted and purged meanwhile; gives the update's job."""
    model, learned = a_model(service, caller), learning.learn
    submit(service, caller, model, [dataset])

    def overtaken(*args):
        made = learned(*args)
        datasets.remove(service, caller, dataset.id)
        assert run_next(service).kind == "purge"
        then()
        return made

    with monkeypatch.context() as patch:
        patch.setattr(update, "learn", overtaken)
        return run_next(service)


def test_persons_stay_while_a_job_may_publish_a_version_that_used_them(
    service, tenant, caller, dataset, monkeypatch
):
    done = deleted_while_it_computes(service, caller, dataset, monkeypatch)
    assert done.state == "succeeded", done.error
    assert count(service, Shard, feature_map_id=None) == 0
    assert count(service, SampleSubject) == 12
    assert purges.remove_left(service) == 0

    asked = ask(service, caller, ["ant"])
    with service.db.read() as session:
        found = session.scalars(
            select(ForgetItem.resource_id).filter_by(request_id=asked.id, kind="model")
        ).all()
    assert found == [done.model_id]
    models.remove(service, caller, done.model_id, lambda revision: None)
    while count(service, Job, state="queued"):
        run_next(service)
    assert [count(service, table) for table in (Sample, SampleSubject)] == [0, 0]


def test_persons_go_when_the_last_job_that_read_them_published_nothing(service, caller, dataset, monkeypatch):
    done = deleted_while_it_computes(service, caller, dataset, monkeypatch, then=lambda: 1 / 0)
    assert done.state == "failed"
    assert count(service, SampleSubject) == 12

    Scheduler(service).sweep()
    assert [count(service, table) for table in (Sample, SampleSubject)] == [0, 0]
    assert purges.remove_left(service) == 0
