"""SIGKILL at every stage of a real update: a finished or a requeued job, and no half version."""

import os
import signal

import pytest
from sqlalchemy import func, select

from app import ids
from app.services.erasure.orphans import remove_orphans
from app.services.models import snapshots
from app.tables import (
    AliasMove,
    Centroid,
    Checkpoint,
    Job,
    ModelClass,
    Version,
    VersionClass,
    VersionDataset,
)
from tests.services.learning import a_dataset, a_model, rows, submit
from tests.workers.held_update import STAGES
from tests.workers.watching import reaches, until

MLP = {"name": "mlp", "params": {"hidden": [8]}}


@pytest.fixture
def start(start_worker):
    return lambda: start_worker(module="tests.workers.update_worker")


def hold(service, stage):
    """Stay at a stage in the first attempt of every job from now on."""
    (service.settings.data_dir / "notes").write_text("")
    (service.settings.data_dir / "hold").write_text(stage)


def noted(service, stage):
    """The process that reached a stage in its first attempt, once it has."""

    def look():
        lines = (service.settings.data_dir / "notes").read_text().splitlines()
        found = [line.rsplit(" ", 2) for line in lines]
        return [int(pid) for name, attempt, pid in found if (name, attempt) == (stage, "1")]

    return until(look)[0]


def count(service, table, **of):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(table).filter_by(**of))


@pytest.mark.slow
def test_an_update_killed_at_any_stage_publishes_one_whole_version(service, tenant, caller, start, sweeps):
    start()
    for stage in STAGES if service.settings.database.url == "" else ("publishing",):
        hold(service, stage)
        model = a_model(service, caller)
        data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
        job = submit(service, caller, model, [data], alias="production")
        pid = noted(service, stage)
        if stage != "published":  # nothing of it is visible while it is under way
            assert count(service, ModelClass, model_id=model.id) == 0
            assert count(service, Version, model_id=model.id) == 0
        os.kill(pid, signal.SIGKILL)

        done = reaches(service, job, "succeeded", "failed")
        assert done.state == "succeeded", done.error
        assert done.attempt == (1 if stage == "published" else 2)
        assert_whole(service, model, done)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["embedded"], indirect=True)
def test_training_resumes_from_its_checkpoint_to_the_same_bytes(service, tenant, caller, start, sweeps):
    start()
    data = a_dataset(service, tenant.id, rows(ant=20, bee=20))
    params = {"epochs": 4, "batch_size": 8}
    hold(service, "none")
    whole = submit(service, caller, a_model(service, caller, network=MLP), [data], "supervised", params)
    expected = weights(service, reaches(service, whole, "succeeded", "failed"))

    hold(service, "epoch 3")
    job = submit(service, caller, a_model(service, caller, network=MLP), [data], "supervised", params)
    pid = noted(service, "epoch 3")
    assert count(service, Checkpoint, job_id=job.id) == 1
    os.kill(pid, signal.SIGKILL)
    done = reaches(service, job, "succeeded", "failed")

    assert done.attempt == 2
    assert weights(service, done) == expected
    second = [line.split()[:3] for line in (service.settings.data_dir / "notes").read_text().splitlines()]
    epochs = {line[1] for line in second if line[0] == "epoch" and line[2] == "2"}
    assert epochs == {"3", "4"}  # the first two were not done again
    until(lambda: count(service, Checkpoint, job_id=job.id) == 0)


@pytest.mark.slow
def test_statistics_of_an_update_killed_after_saving_are_whole_and_stored_once(
    service, tenant, caller, start, sweeps
):
    start()
    hold(service, "saved")
    model = a_model(service, caller, expansion={"width": 16, "seed": 1})
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
    job = submit(service, caller, model, [data], "analytic")
    os.kill(noted(service, "saved"), signal.SIGKILL)
    done = reaches(service, job, "succeeded", "failed")
    assert done.attempt == 2

    with service.db.read() as session:
        (version,) = session.scalars(select(Version).filter_by(model_id=model.id)).all()
    for folder in (service.settings.objects_dir, service.settings.keys_dir):
        for path in folder.rglob("*"):
            os.utime(path, (0, 0))
    assert remove_orphans(service) == 3  # head, statistics and key of the first attempt
    found = snapshots.load(service, version.id, statistics=True).snapshot.statistics
    assert found is not None
    assert found.rows == 8


def assert_whole(service, model, done):
    """One version with all that belongs to it, and an alias moved once."""
    with service.db.read() as session:
        (version,) = session.scalars(select(Version).filter_by(model_id=model.id)).all()
        assert ids.encode("ver", version.id) == done.result["version_id"]
        assert version.number == done.result["version"] == 1
        (use,) = session.scalars(select(VersionDataset).filter_by(version_id=version.id)).all()
        assert (use.role, use.rows) == ("train", 8)
        known = session.scalars(select(VersionClass).filter_by(version_id=version.id)).all()
        assert len(known) == session.scalar(
            select(func.count()).select_from(ModelClass).filter_by(model_id=model.id)
        )
        made = session.scalar(select(func.count()).select_from(Centroid).filter_by(key_id=version.key_id))
        assert made == len(known) == 2
        assert session.scalar(select(func.count()).select_from(AliasMove).filter_by(model_id=model.id)) == 1
        assert session.scalar(select(func.count()).select_from(Job).filter_by(model_id=model.id)) == 1
    loaded = snapshots.load(service, version.id).snapshot
    assert {name: centroid.count for name, centroid in loaded.centroids.items()} == {"ant": 4, "bee": 4}


def weights(service, done):
    assert done.state == "succeeded", done.error
    with service.db.read() as session:
        version = session.get_one(Version, ids.decode("ver", done.result["version_id"]))
    return service.vault.key(version.key_id).digests["weights"]
