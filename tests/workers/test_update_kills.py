"""A worker that dies at every stage of a real update: one version in the end, and nothing half."""

import os
import time

import psutil
import pytest
from sqlalchemy import select

from app.services import orphans, snapshots
from app.tables import Centroid, Job, ModelClass, Shard, Version
from tests.services.learning import a_dataset, a_model, rows, submit
from tests.workers.stops import FOLDER, STAGES
from tests.workers.watching import gone, reaches, until


@pytest.fixture
def stages(tmp_path, monkeypatch):
    folder = tmp_path / "stages"
    folder.mkdir()
    monkeypatch.setenv(FOLDER, str(folder))
    return folder


def stored(files):
    return {path.name for path in files.root.glob("[0-9a-f][0-9a-f]/*")}


@pytest.mark.slow
def test_a_worker_killed_at_any_stage_leaves_one_version_and_nothing_half(
    service, tenant, caller, start_worker, stages, sweeps
):
    workers = {}
    for _ in range(2):  # one to be killed, the other to do its job
        process = start_worker("cpu,gpu", "tests.workers.stops", "worker")
        workers[process.pid] = process
    for stage in STAGES:
        (stages / stage).touch()
        here = stages / f"{stage}.here"
        model = a_model(service, caller)
        job_id = submit(service, caller, model, [a_dataset(service, tenant.id, rows(ant=6, bee=6))]).id
        computing = int(until(lambda here=here: here.exists() and here.read_text()))
        victim = workers.pop(psutil.Process(computing).ppid())
        victim.kill()
        victim.wait()
        until(lambda pid=computing: gone(pid))
        (stages / stage).unlink()
        replacement = start_worker("cpu,gpu", "tests.workers.stops", "worker")
        workers[replacement.pid] = replacement

        with service.db.read() as session:
            job = session.get_one(Job, job_id)
        job = reaches(service, job, "succeeded", "failed")
        assert job.state == "succeeded", (stage, job.error)
        assert job.lost == (0 if stage == "published" else 1)
        with service.db.read() as session:
            (version,) = session.scalars(select(Version).where(Version.model_id == job.model_id)).all()
            names = session.scalars(select(ModelClass.name).where(ModelClass.model_id == job.model_id)).all()
        assert job.result["version"] == version.number == 1
        assert sorted(names) == ["ant", "bee"]
        assert snapshots.load(service, version.id).snapshot.classes == ("ant", "bee")
    nothing_is_left_over(service)


def nothing_is_left_over(service):
    """After the sweep every file is named by a row, and every row finds its file."""
    for files in (service.vault.files, service.vault.keys):
        for id in stored(files):
            long_ago = time.time() - 7200
            os.utime(files.root / id[-2:] / id, (long_ago, long_ago))
    orphans.remove_orphans(service)
    with service.db.read() as session:
        versions, shards = session.scalars(select(Version)).all(), session.scalars(select(Shard)).all()
        keys = set(session.scalars(select(Centroid.key_id)))
    assert stored(service.vault.files) == {row.file_id.hex for row in (*versions, *shards)}
    assert {id.hex for id in keys} <= {row.key_id.hex for row in versions} <= stored(service.vault.keys)
