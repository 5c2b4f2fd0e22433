"""What is left of versions that a forget job replaced: their numbers, and nothing that they stored."""

import os
import time
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from sqlalchemy import select

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt, Purged
from app.services import certificates, jobs
from app.services.callers.idempotency import Once
from app.services.datasets import datasets, features, shards
from app.services.erasure import forgotten, superseded
from app.services.jobs import Signal
from app.services.models import retention, snapshots, updates
from app.tables import (
    Centroid,
    Checkpoint,
    FeatureMap,
    ForgetItem,
    IdempotencyRecord,
    Job,
    JobEvent,
    Model,
    SampleSubject,
    Shard,
    Version,
    VersionClass,
)
from app.vault import new_key
from tests.services.erasing import a_request
from tests.services.learning import a_dataset, a_model, an_update, claim, learn, rows, run_next, submit
from tests.services.sent import send
from tests.services.versions import add_version
from workers import runner
from workers.checkpoints import JobCheckpoint

MLP = {"name": "mlp", "params": {"hidden": [8]}}

of_files = pytest.mark.parametrize("stack", ["embedded"], indirect=True)  # the same files on every stack


def purge(service, tenant_id):
    return forgotten.purge(service, tenant_id, lambda _: None)


def now(service, row):
    return again(service, type(row), row.id)


def again(service, table, id):
    with service.db.read() as session:
        return session.get_one(table, id)


def names_of_files(service):
    folders = (service.settings.objects_dir, service.settings.keys_dir)
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}


def retire(service, *versions):
    """What the publication of their replacements does."""
    with service.db.begin() as session:
        for version in versions:
            session.get_one(Version, version.id).state = "retired"


@pytest.fixture
def world(service, tenant, caller):
    """Two versions that used a row, retired, and one that shares the centroids of classes without it."""
    model = a_model(service, caller)
    data = [a_dataset(service, tenant.id, rows(ant=4, bee=4)), a_dataset(service, tenant.id, rows(cat=5))]
    first = learn(service, caller, model, data[:1], "analytic")
    second = learn(service, caller, model, data[1:], "analytic")
    clean = snapshots.load(service, second.id).snapshot
    third = add_version(
        service, again(service, Model, model.id), clean, centroids_of=second.id, ledger_sequence=9
    )
    retire(service, first, second)
    return data, (first, second, third)


def stored_by(version):
    ids_of = (version.file_id, version.statistics_file_id, version.key_id)
    return {id.hex for id in ids_of if id is not None}


def test_superseded_versions_are_destroyed_and_stay_as_numbers(service, tenant, world):
    data, (first, second, _) = world
    request = a_request(service, tenant.id, {data[0]: [0]})

    purge(service, tenant.id)
    assert not names_of_files(service) & (stored_by(first) | stored_by(second))
    for version in (first, second):
        left = now(service, version)
        assert (left.state, left.number) == ("purged", version.number)
        assert (left.metrics, left.report, left.statistics_file_id) == ({}, {}, None)
        assert left.purged_at is not None
        with pytest.raises(Purged):
            snapshots.load(service, version.id)
    assert now(service, request).evidence["purge"]["versions"] == 2


def test_centroids_that_a_usable_version_shares_go_on_under_its_key_and_no_other_stays(
    service, tenant, world
):
    data, (_, second, third) = world
    before = snapshots.load(service, third.id).snapshot.centroids
    with service.db.begin() as session:
        ant = session.scalars(select(VersionClass).filter_by(version_id=third.id)).first()
        ant.centroid_id = None  # as where a forget made a new one
    a_request(service, tenant.id, {data[0]: [0]})
    purge(service, tenant.id)

    with service.db.read() as session:
        left = session.scalars(select(Centroid)).all()
        shared = session.scalars(select(VersionClass.centroid_id).filter_by(version_id=third.id)).all()
        others = session.scalars(
            select(VersionClass.centroid_id).where(VersionClass.version_id == second.id)
        ).all()
    assert {row.id for row in left} == {id for id in shared if id is not None}
    assert {row.key_id for row in left} == {third.key_id}
    assert set(others) == {None}
    for name, centroid in snapshots.load(service, third.id).snapshot.centroids.items():
        np.testing.assert_array_equal(centroid.sum, before[name].sum)


def test_what_was_said_of_them_no_longer_counts_or_measures(service, tenant, world):
    data, (first, _, _) = world
    with service.db.begin() as session:
        jobs.say(session, first.job_id, clock(session), "progress", {"message": "loss 0.25"})
        session.get_one(Job, first.job_id).progress = {"fraction": 1.0, "message": "loss 0.25"}
        assert "metrics" in session.get_one(Job, first.job_id).result
    a_request(service, tenant.id, {data[0]: [0]})
    purge(service, tenant.id)
    with service.db.read() as session:
        job = session.get_one(Job, first.job_id)
        events = session.scalars(select(JobEvent).filter_by(job_id=job.id)).all()
    bare = {"version": 1, "version_id": ids.encode("ver", first.id)}
    assert job.result == bare
    assert job.progress["message"] == ""
    assert [line.data["result"] for line in events if line.event == "done"] == [bare]
    assert "progress" not in {line.event for line in events}


def test_stored_answers_about_them_are_emptied_and_their_keys_stay_taken(service, tenant, caller):
    model = a_model(service, caller)
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
    once = Once(tenant.id, "POST /v1/updates", "key", "fingerprint")
    updates.submit(service, caller, model.id, an_update([data]), once)
    version_id = ids.decode("ver", run_next(service).result["version_id"])
    with service.db.begin() as session:
        session.get_one(Version, version_id).state = "retired"
        assert session.scalars(select(IdempotencyRecord)).one().body
    a_request(service, tenant.id, {data: [0]})
    purge(service, tenant.id)
    with service.db.read() as session:
        kept = session.scalars(select(IdempotencyRecord)).one()
    assert (kept.key, kept.fingerprint, kept.status, kept.body) == ("key", "fingerprint", 202, None)


def test_a_version_that_was_retired_and_destroyed_long_ago_loses_its_counts_too(service, tenant, caller):
    model = a_model(service, caller, keep_versions=1)
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
    first = learn(service, caller, model, [data])
    submit(service, caller, model, [a_dataset(service, tenant.id, rows(cat=4))])
    run_next(service)
    retention.purge_retired(service, model.id, lambda _: None)
    assert now(service, first).metrics
    a_request(service, tenant.id, {data: [0]})
    purge(service, tenant.id)
    assert (now(service, first).state, now(service, first).metrics) == ("purged", {})


def test_a_version_without_the_row_and_one_that_is_in_use_stay(service, tenant, caller):
    model = a_model(service, caller)
    data = [a_dataset(service, tenant.id, rows(ant=4, bee=4)) for _ in range(2)]
    used = learn(service, caller, model, data[:1])
    other = a_model(service, caller)
    untouched = learn(service, caller, other, data[1:])
    retire(service, untouched)
    a_request(service, tenant.id, {data[0]: [0]})
    purge(service, tenant.id)
    for version in (used, untouched):
        assert now(service, version).state != "purged"
        assert version.key_id.hex in names_of_files(service)


def test_only_the_versions_of_the_models_that_a_request_names_are_destroyed(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
    models = [a_model(service, caller) for _ in range(2)]
    versions = [learn(service, caller, model, [data]) for model in models]
    retire(service, *versions)
    a_request(service, tenant.id, {data: [0]}, models=models[:1])
    purge(service, tenant.id)
    assert [now(service, version).state for version in versions] == ["purged", "retired"]


@of_files
def test_a_network_that_a_usable_version_reads_stays_alone_and_goes_once_nobody_does(service, tenant, caller):
    model = a_model(service, caller, network=MLP)
    data = a_dataset(service, tenant.id, rows(ant=6, bee=6), split=[0] * 11 + [1])
    first = learn(service, caller, model, [data], "supervised", {"epochs": 1, "batch_size": 8})
    loaded = snapshots.load(service, first.id)
    clean = add_version(
        service,
        again(service, Model, model.id),
        loaded.snapshot,
        feature_map_id=first.feature_map_id,
        ledger_sequence=1,
    )
    retire(service, first)
    a_request(service, tenant.id, {data: [11]})
    purge(service, tenant.id)

    kept = now(service, first)
    assert kept.state == "purged"
    assert not names_of_files(service) & stored_by(first)
    key = service.vault.key(kept.key_id)
    raw = service.vault.open(kept.file_id, key)
    assert set(load(raw)) == {f"network.{name}" for name in loaded.snapshot.weights}
    assert set(key.digests) == {kept.file_id.hex}
    weights = snapshots.load(service, clean.id).snapshot.weights
    assert all((weights[name] == loaded.snapshot.weights[name]).all() for name in weights)
    assert shards.has_map(service, data.id, first.feature_map_id)

    retire(service, clean)
    a_request(service, tenant.id, {data: [0]})
    purge(service, tenant.id)
    assert not {kept.key_id.hex, kept.file_id.hex} & names_of_files(service)
    assert not shards.has_map(service, data.id, first.feature_map_id)


@of_files
def test_a_network_that_is_lost_holds_nothing_up(service, tenant, caller):
    model = a_model(service, caller, network=MLP)
    data = a_dataset(service, tenant.id, rows(ant=6, bee=6), split=[0] * 11 + [1])
    first = learn(service, caller, model, [data], "supervised", {"epochs": 1, "batch_size": 8})
    loaded = snapshots.load(service, first.id).snapshot
    row = again(service, Model, model.id)
    add_version(service, row, loaded, feature_map_id=first.feature_map_id, ledger_sequence=1)
    retire(service, first)
    service.vault.keys.delete(first.key_id)
    request = a_request(service, tenant.id, {data: [11]})
    purge(service, tenant.id)
    assert (now(service, first).state, now(service, request).state) == ("purged", "completed")


@of_files
def test_features_on_a_network_that_knew_the_row_are_destroyed_for_every_dataset(service, tenant, caller):
    model = a_model(service, caller, network=MLP)
    data = [a_dataset(service, tenant.id, rows(ant=6, bee=6)), a_dataset(service, tenant.id, rows(cat=6))]
    first = learn(service, caller, model, data[:1], "supervised", {"epochs": 1, "batch_size": 8})
    second = learn(service, caller, model, data[1:])
    retire(service, first, second)
    a_request(service, tenant.id, {data[0]: [3]})
    purge(service, tenant.id)
    with service.db.read() as session:
        source = features.trained_source(first.id)
        map_id = session.scalars(select(FeatureMap.id).filter_by(source=source)).one()
        assert session.scalars(select(Shard).filter_by(feature_map_id=map_id)).all() == []
    with service.db.read() as session:
        left = session.scalars(select(Shard)).all()
    named = {id.hex for row in left for id in (row.file_id, row.key_id)} | {tenant.id.hex}
    signing = names_of_files(service) - named
    assert len(signing) <= 2  # the datasets' own key objects are not made here; the signing key's is
    assert not signing & (stored_by(first) | stored_by(second))


class Killed(BaseException):
    """A process that ends where it stands."""


@pytest.mark.parametrize("network", [None, MLP])
def test_a_purge_that_is_killed_anywhere_is_finished_by_the_next(
    service, tenant, caller, monkeypatch, network
):
    settings = {"network": network} if network else {}
    model = a_model(service, caller, **settings)
    split = [0] * 11 + [1]
    data = a_dataset(service, tenant.id, rows(ant=6, bee=6), split=split)
    if network:
        first = learn(service, caller, model, [data], "supervised", {"epochs": 1, "batch_size": 8})
    else:
        first = learn(service, caller, model, [data], "analytic")
    loaded = snapshots.load(service, first.id).snapshot
    clean = add_version(
        service,
        again(service, Model, model.id),
        loaded,
        feature_map_id=first.feature_map_id,
        centroids_of=first.id,
        ledger_sequence=1,
    )
    retire(service, first)
    request = a_request(service, tenant.id, {data: [11]})
    for owner, step in (
        (retention, "move_centroids"),
        (type(service.vault), "destroy"),
        (superseded, "_close"),
        (forgotten, "_destroy_rows"),
        (certificates, "issue_all"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                purge(service, tenant.id)
    assert purge(service, tenant.id) == [request.id]
    assert purge(service, tenant.id) == []
    assert not names_of_files(service) & stored_by(first)
    assert now(service, request).evidence["purge"]["versions"] == 1
    left = snapshots.load(service, clean.id).snapshot
    assert left.centroids.keys() == loaded.centroids.keys()
    assert left.weights.keys() == loaded.weights.keys()


def test_what_a_job_saved_for_its_successor_goes_if_it_used_the_row(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
    saved = []
    for left_out in ([], [0], [1]):
        submit(service, caller, a_model(service, caller), [data])
        claimed = claim(service, "cpu")
        JobCheckpoint(service, claimed, ledger_sequence=0, left_out={data.id.hex: left_out}, params={}).save(
            {"x": torch.zeros(1)}
        )
        saved.append(claimed.id)
    a_request(service, tenant.id, {data: [0]})
    purge(service, tenant.id)
    with service.db.read() as session:
        left = session.scalars(select(Checkpoint)).all()
    assert [row.job_id for row in left] == [saved[1]]
    with service.db.read() as session:
        named = {id.hex for row in session.scalars(select(Shard)) for id in (row.key_id, row.file_id)}
    named |= {left[0].key_id.hex, left[0].file_id.hex, tenant.id.hex}
    assert len(names_of_files(service) - named) == 1  # the signing key


def test_numbers_that_an_earlier_request_measured_on_them_go(service, tenant, world):
    data, (first, second, _) = world
    earlier = a_request(service, tenant.id, {data[0]: [1]}, state="completed")
    with service.db.begin() as session:
        session.get_one(Version, second.id).replaces_id = first.id
        item = ForgetItem(
            request_id=earlier.id,
            kind="version",
            resource_id=first.id,
            tenant_id=tenant.id,
            state="done",
            detail={"replacement_id": second.id.hex, "checks": {"residual": 1.5e-17}},
        )
        session.add(item)
    a_request(service, tenant.id, {data[0]: [0]})
    purge(service, tenant.id)
    with service.db.read() as session:
        assert session.scalars(select(ForgetItem)).one().detail == {"replacement_id": second.id.hex}


def test_the_job_of_a_tenant_purges_and_says_how_many(service, tenant, world):
    data, _ = world
    a_request(service, tenant.id, {data[0]: [0]})
    with service.db.begin() as session:
        job = jobs.new_job(
            session,
            tenant_id=tenant.id,
            kind="purge",
            queue="io",
            lane=tenant.id,
            urgency=jobs.Urgency.ERASURE,
            model_id=None,
            resource_id=None,
            request={"erasure": tenant.id.hex},
            actor="system",
            request_id=None,
        )
    claimed = claim(service, "io")
    assert claimed.id == job.id
    runner.run(service, claimed, lambda: Signal.CONTINUE)
    done = now(service, job)
    assert (done.state, done.result) == ("succeeded", {"requests": 1})
    with pytest.raises(ArtifactCorrupt):
        service.vault.key(data[0].id)


@of_files
def test_what_a_killed_writer_left_goes_too_unless_it_may_still_be_written(service, tenant):
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
    left = []
    for age in (120, 0):
        file_id, key_id = ids.new(), ids.new()
        service.vault.write_key(key_id, service.vault.seal(file_id, [b"a draft"], new_key()))
        for folder in (service.settings.objects_dir, service.settings.keys_dir):
            for path in folder.rglob("*"):
                if path.name in (file_id.hex, key_id.hex):
                    os.utime(path, (time.time() - age,) * 2)
        left.append({file_id.hex, key_id.hex})
    a_request(service, tenant.id, {data: [0]})
    purge(service, tenant.id)
    assert not names_of_files(service) & left[0]
    assert left[1] <= names_of_files(service)


def test_a_deleted_dataset_that_only_they_had_used_no_longer_says_who_was_in_it(service, tenant, caller):
    model = a_model(service, caller)
    x = np.eye(4, dtype=np.float32)
    sent: dict[str, Any] = {
        "x": x,
        "label": np.array(["ant", "ant", "bee", "bee"]),
        "subject": np.array(list("abcd")),
    }
    data = send(service, caller, **sent)
    version = learn(service, caller, model, [data])
    datasets.remove(service, caller, data.id)
    run_next(service)
    with service.db.read() as session:
        assert len(session.scalars(select(SampleSubject)).all()) == 4
    retire(service, version)
    a_request(service, tenant.id, {data: [0]})
    purge(service, tenant.id)
    with service.db.read() as session:
        assert session.scalars(select(SampleSubject)).all() == []
