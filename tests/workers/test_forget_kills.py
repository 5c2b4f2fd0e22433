"""SIGKILL at every stage of a forget job: one replacement for each version, and nothing half."""

import psutil
import pytest
from sqlalchemy import func, select

from app.tables import Alias, AliasMove, ForgetRequest, Job, Version
from tests.services.forgetting import approved, items_of, rows_of
from tests.services.learning import a_dataset, a_model, learn, rows, statistics_of
from tests.workers.held_forget import STAGES
from tests.workers.test_update_killed import hold, noted
from tests.workers.test_update_kills import assert_nothing_left_over
from tests.workers.watching import gone, reaches, until


def taught(service, tenant, caller):
    """A model of two versions, the second under an alias."""
    model = a_model(service, caller, expansion={"width": 8, "seed": 1})
    first = a_dataset(service, tenant.id, rows(ant=4, bee=4), split=[0] * 6 + [1] * 2)
    second = a_dataset(service, tenant.id, rows(cat=4), seed=1)
    learn(service, caller, model, [first], "analytic")
    learn(service, caller, model, [second], "analytic", alias="production")
    return model, first


def job_of(service, model):
    with service.db.read() as session:
        return session.query(Job).filter_by(model_id=model.id, kind="forget").one()


def assert_replaced_once(service, model, request):
    with service.db.read() as session:
        found = session.scalars(select(Version).filter_by(model_id=model.id).order_by(Version.number)).all()
        assert [row.state for row in found] == ["retired", "retired", "ready", "ready"]
        assert [row.replaces_id for row in found] == [None, None, found[0].id, found[1].id]
        assert found[3].parent_id == found[2].id
        assert session.query(Alias).filter_by(model_id=model.id).one().version_id == found[3].id
        moves = select(func.count()).select_from(AliasMove).filter_by(model_id=model.id)
        assert session.scalar(moves) == 2
        assert session.get_one(ForgetRequest, request.id).state == "purging"
    assert set(items_of(service, request)) == {row.id for row in found[:2]}
    assert statistics_of(service, found[3]).rows == 9


@pytest.mark.slow
def test_a_worker_killed_at_any_stage_leaves_one_replacement_for_each_version(
    stack, service, tenant, caller, start_worker, sweeps
):
    stages = STAGES if stack == "embedded" else ["publishing"]
    models = [taught(service, tenant, caller) for _ in stages]
    workers = {}
    for _ in range(2):
        process = start_worker(module="tests.workers.update_worker")
        workers[process.pid] = process
    for stage, (model, data) in zip(stages, models, strict=True):
        hold(service, stage)
        request = approved(service, tenant, rows_of(data, 1))
        job = job_of(service, model)
        service.bell.ring(job.id, job.queue)
        computing = noted(service, stage)
        victim = workers.pop(psutil.Process(computing).ppid())
        victim.kill()
        victim.wait()
        until(lambda pid=computing: gone(pid))
        if stage != stages[-1]:
            process = start_worker(module="tests.workers.update_worker")
            workers[process.pid] = process

        done = reaches(service, job, "succeeded", "failed")
        assert done.state == "succeeded", (stage, done.error)
        assert done.lost == (0 if stage == "published" else 1)
        assert_replaced_once(service, model, request)
    assert_nothing_left_over(service)
