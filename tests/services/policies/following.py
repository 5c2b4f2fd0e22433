"""Models that learn by themselves, and what can be asked of them."""

import threading
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from app import ids
from app.schemas.models import ModelChange
from app.services import jobs
from app.services.models import models
from app.services.models.aliases import of_model
from app.services.paging import Page, Place
from app.services.policies import history, policies
from app.tables import Dataset, Job, Model, Offer, Version, VersionDataset
from tests.services.learning import (
    a_dataset,
    a_model,
    learn,
    rows,
)

NCM = {"name": "ncm", "params": {}}
BASE = rows(ant=4, bee=4)
SPLIT = [0, 0, 0, 1]


def with_policy(service, caller, model, **fields):
    body = {"when": "on_dataset", "method": NCM, **fields}
    return change(service, caller, model, update_policy=body)


def change(service, caller, model, **fields):
    return models.change(service, caller, model.id, ModelChange.model_validate(fields), lambda revision: None)


def a_policy_model(service, caller, *, taught=True, model=None, **fields):
    """A model with one version of ants and bees that learns by itself from now on."""
    found = a_model(service, caller, **(model or {}))
    if taught:
        learn(service, caller, found, [a_dataset(service, caller.tenant_id, BASE)], alias="production")
    with_policy(service, caller, found, **fields)
    return found


def offer(service, caller, model, labels, **given):
    """A dataset that is stored and offered as an upload that names the model does."""
    row = a_dataset(service, caller.tenant_id, labels, **given)
    offer_again(service, caller, model, row)
    return row


def offer_again(service, caller, model, row):
    with service.db.begin() as session:
        policies.offer(service, session, caller, model.id, session.get_one(Dataset, row.id))


def lines(service, caller, model):
    page: Page[Place] = Page(500)
    return [
        line
        for line in history.browse(service, caller.tenant_id, model.id, page).rows
        if line.event != "alias-moved"
    ]


def events(service, caller, model):
    return [line.event for line in lines(service, caller, model)]


def updates_of(service, model):
    with service.db.read() as session:
        return session.scalars(
            select(Job).filter_by(model_id=model.id, state="queued").order_by(Job.created_at)
        ).all()


def named(found):
    return {UUID(hex=id) for id in found.request["datasets"]}


def aliases(service, model):
    with service.db.read() as session:
        return {alias.name: alias.version for alias in of_model(session, model.id) if not alias.computed}


def pass_time(service, model, seconds):
    """The same as waiting: what was offered, what has ended, and the policy, are that much older."""
    ago = timedelta(seconds=seconds)
    with service.db.begin() as session:
        for job in session.scalars(select(Job).where(Job.finished_at.is_not(None))):
            job.finished_at -= ago
        for row in session.scalars(select(Offer).filter_by(model_id=model.id)):
            row.offered_at -= ago
        session.get_one(Model, model.id).policy_set_at -= ago


def train_edges(service, version):
    with service.db.read() as session:
        found = session.scalars(select(VersionDataset).filter_by(version_id=version.id, role="train"))
        return {edge.dataset_id for edge in found}


def the_version(service, done):
    assert done.state == "succeeded", done.error
    with service.db.read() as session:
        return session.get_one(Version, ids.decode("ver", done.result["version_id"]))


def at_once(calls):
    """Runs calls on threads that begin together; raises what one of them raised."""
    gate, failed = threading.Barrier(len(calls)), []

    def run(call):
        gate.wait()
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def let_fail(service):
    """The next job fails through no fault of a dataset."""
    claimed = jobs.claim(service, ["cpu"], "test")
    assert claimed is not None
    jobs.fail(service, claimed, jobs.Cause.INTERNAL)


def state_of(service, model, row):
    with service.db.read() as session:
        return session.get_one(Offer, (model.id, row.id)).state


def gated(service, caller, **gates):
    """A model whose alias stands at a version and whose policy moves it if these gates hold."""
    model = a_model(service, caller, gates=gates)
    data = a_dataset(service, caller.tenant_id, rows(ant=4, bee=4), split=[0] * 6 + [1] * 2)
    learn(service, caller, model, [data], alias="production")
    assert aliases(service, model) == {"production": 1}
    with_policy(service, caller, model, promote="if_gates_pass", alias="production")
    return model
