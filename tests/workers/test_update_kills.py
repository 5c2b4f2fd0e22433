"""A worker that dies, and its computing process with it, at every stage of a real update."""

import os
import subprocess
import time

import psutil
import pytest
from sqlalchemy import select

from app.services.erasure import orphans
from app.tables import Centroid, Shard, Version
from tests.services.learning import a_dataset, a_model, rows, submit
from tests.workers.held_update import STAGES
from tests.workers.test_update_killed import assert_whole, hold, noted
from tests.workers.watching import gone, reaches, until


@pytest.mark.slow
def test_a_worker_killed_at_any_stage_leaves_one_version_and_nothing_half(
    stack, service, tenant, caller, start_worker, sweeps
):
    def start():
        process = start_worker(module="tests.workers.update_worker")
        workers[process.pid] = process

    workers: dict[int, subprocess.Popen[bytes]] = {}
    for _ in range(2):  # one to be killed, the other to do its job
        start()
    for stage in STAGES if stack == "embedded" else ("publishing",):
        hold(service, stage)
        model = a_model(service, caller)
        data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
        job = submit(service, caller, model, [data], alias="production")
        computing = noted(service, stage)
        victim = workers.pop(psutil.Process(computing).ppid())
        victim.kill()
        victim.wait()
        until(lambda pid=computing: gone(pid))
        start()

        done = reaches(service, job, "succeeded", "failed")
        assert done.state == "succeeded", (stage, done.error)
        assert done.lost == done.expired == (0 if stage == "published" else 1)
        assert_whole(service, model, done)
    assert_nothing_left_over(service)


def assert_nothing_left_over(service):
    """After the sweep every file is named by a row, and every row finds its file."""
    for files in (service.vault.files, service.vault.keys):
        for id in stored(files):
            long_ago = time.time() - 7200
            os.utime(files.root / id[-2:] / id, (long_ago, long_ago))
    orphans.remove_orphans(service)
    with service.db.read() as session:
        versions, shards = session.scalars(select(Version)).all(), session.scalars(select(Shard)).all()
        keys = set(session.scalars(select(Centroid.key_id)))
    kept = {row.statistics_file_id.hex for row in versions if row.statistics_file_id}
    assert stored(service.vault.files) == kept | {row.file_id.hex for row in (*versions, *shards)}
    assert {id.hex for id in keys} <= {row.key_id.hex for row in versions} <= stored(service.vault.keys)


def stored(files):
    return {path.name for path in files.root.glob("[0-9a-f][0-9a-f]/*")}
