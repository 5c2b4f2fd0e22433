"""Forget requests that come while something runs: no version is published with the rows, and none is lost."""

import numpy as np
import pytest
from sqlalchemy import select

from app import ids
from app.schemas.aliases import AliasPut
from app.services import jobs
from app.services.erasure import ledger
from app.services.jobs import Signal
from app.services.models import aliases
from app.tables import Alias, AliasMove, ForgetRequest, Job, Version, VersionDataset
from tests.services.forgetting import (
    approved,
    as_it_is,
    forget,
    items_of,
    replacement_of,
    request_of,
    rows_of,
)
from tests.services.learning import claim, learn, run_next, statistics_of, submit
from tests.workers.test_exact_heads import an_exact_model, digests, many, reference, sent
from workers import forget as forgetting
from workers import forget_entries, publishing, runner, update

LABELS, X = many()
HALVES = np.array_split(np.arange(32), 2)


def taught(service, tenant, caller, count=1, **changes):
    model = an_exact_model(service, caller, **changes)
    data = [sent(service, tenant, LABELS, X, part) for part in HALVES]
    made = [learn(service, caller, model, [one], "analytic", on_conflict="extend") for one in data[:count]]
    return model, data, made


def run_claimed(service, claimed):
    runner.run(service, claimed, lambda: Signal.CONTINUE)
    with service.db.read() as session:
        return session.get_one(Job, claimed.id)


def until_quiet(service):
    """Run what is queued, the most urgent first; gives the jobs as they ended."""
    done = []
    while (claimed := jobs.claim(service, ["cpu", "gpu", "io"], "test")) is not None:
        done.append(run_claimed(service, claimed))
    return done


@pytest.mark.parametrize("stack", ["embedded", "production"], indirect=True)
@pytest.mark.parametrize(
    ("moment", "module", "step"),
    [
        ("computes", update, "learn"),
        ("saves", update, "_save"),
        ("waits to publish", publishing, "patiently"),
    ],
)
def test_an_update_that_the_approval_overtakes_is_done_again_without_the_rows(
    service, tenant, caller, monkeypatch, moment, module, step
):
    model, data, _ = taught(service, tenant, caller)
    job = submit(service, caller, model, [data[1]], "analytic", on_conflict="extend")
    claimed = claim(service, "cpu")
    whole, requests = getattr(module, step), []

    def overtaken(*args, **given):
        if moment != "waits to publish":
            found = whole(*args, **given)
        requests.append(approved(service, tenant, rows_of(data[1], 2) + rows_of(data[0], 1)))
        return whole(*args, **given) if moment == "waits to publish" else found

    with monkeypatch.context() as patch:
        patch.setattr(module, step, overtaken)
        first = run_claimed(service, claimed)
    assert (first.state, first.attempt) == ("queued", 0)
    assert as_it_is(service, taught_one(service, model)).state == "ready"
    done = until_quiet(service)
    assert [one.kind for one in done if one.lane == model.id] == ["forget", "update"]
    with service.db.read() as session:
        published = session.scalars(select(Version).filter_by(job_id=job.id)).one()
    rest = [i for i in range(32) if i not in (1, 18)]
    assert digests(service, published)[0] == reference([LABELS[i] for i in rest], X[rest]).digest()
    assert request_of(service, requests[0]).state in ("purging", "completed")


def taught_one(service, model):
    with service.db.read() as session:
        return session.query(Version).filter_by(model_id=model.id).one()


@pytest.fixture
def stack(request):
    return getattr(request, "param", "embedded")


def test_an_erasure_approved_while_the_job_computes_is_left_to_the_next_one(
    service, tenant, caller, monkeypatch
):
    _, data, [old] = taught(service, tenant, caller)
    later: list[ForgetRequest] = []
    prepare = forgetting._prepare

    def overtaken(*args):
        if not later:
            later.append(approved(service, tenant, rows_of(data[0], 5)))
        return prepare(*args)

    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "_prepare", overtaken)
        first, job = forget(service, tenant, data[0], 2)
    assert job.state == "succeeded", job.error
    between = replacement_of(service, old)
    assert left_out(service, between, data[0]) == [2]
    with service.db.read() as session:
        assert ledger.tainted(session, [between.id]) == {between.id: 1}
    until_quiet(service)
    last = replacement_of(service, between)
    assert left_out(service, last, data[0]) == [2, 5]
    rest = [i for i in HALVES[0] if i not in (2, 5)]
    assert digests(service, last)[0] == reference([LABELS[i] for i in rest], X[rest]).digest()
    assert set(items_of(service, first)) == {old.id}
    assert set(items_of(service, later[0])) == {between.id}


def left_out(service, version, data):
    with service.db.read() as session:
        return session.get_one(VersionDataset, (version.id, data.id, "train")).left_out


def test_a_cancelled_or_fenced_job_publishes_nothing_and_leaves_no_bytes(
    service, tenant, caller, monkeypatch
):
    _, data, [old] = taught(service, tenant, caller)
    approved(service, tenant, rows_of(data[0], 2))
    before = objects(service)
    claimed = claim(service, "cpu")
    measure = forgetting._measure

    def fenced(*args):
        found = measure(*args)
        with service.db.begin() as session:
            job = session.get_one(Job, claimed.id)
            job.lease_epoch += 1
        return found

    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "_measure", fenced)
        run_claimed(service, claimed)
    assert replacement_of(service, old) is None
    assert as_it_is(service, old).state == "ready"
    assert objects(service) == before


def objects(service):
    folders = (service.settings.objects_dir, service.settings.keys_dir)
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_a_failed_attempt_takes_the_same_requests_again(service, tenant, caller, monkeypatch):
    _, data, [old] = taught(service, tenant, caller)
    request = approved(service, tenant, rows_of(data[0], 2))
    take = forget_entries.take
    with monkeypatch.context() as patch:
        patch.setattr(forget_entries, "take", lambda *args: (take(*args), 1 / 0))
        claimed = claim(service, "cpu")
        with service.db.begin() as session:
            session.get_one(Job, claimed.id).max_attempts = 5
        patch.setattr(runner, "diagnose", lambda error: (jobs.Cause.WORKER_LOST, "", ()))
        run_claimed(service, claimed)
    assert request_of(service, request).state == "unlearning"
    done = run_next(service)
    assert (done.state, done.attempt) == ("succeeded", 2)
    assert set(items_of(service, request)) == {old.id}


def test_aliases_follow_and_their_history_names_the_request(service, tenant, caller):
    model, data, old = taught(service, tenant, caller, count=2)
    for name, number in (("live", 2), ("before", 1)):
        aliases.put(service, caller, model.id, name, AliasPut(version=number, reason="x"), lambda _: None)
    request, _ = forget(service, tenant, data[0], 2)
    with service.db.read() as session:
        named = {row.name: row.version_id for row in session.query(Alias).filter_by(model_id=model.id)}
        last = session.query(AliasMove).filter_by(model_id=model.id).order_by(AliasMove.id.desc()).first()
    assert named == {"live": replacement_of(service, old[1]).id, "before": replacement_of(service, old[0]).id}
    assert ids.encode("fgt", request.id) in last.reason


def test_a_replacement_is_as_old_as_what_it_replaces(service, tenant, caller):
    """A version on an older base keeps its place before the replacement of that base's other child."""
    model, data, [first] = taught(service, tenant, caller)
    second = learn(service, caller, model, [data[1]], "analytic", on_conflict="extend")
    third = learn(service, caller, model, [], "lda", base=first.number)
    forget(service, tenant, data[1], 2)
    assert replacement_of(service, second).number > third.number
    fourth = learn_after_purge(service, caller, model)
    assert fourth.parent_id == third.id


def learn_after_purge(service, caller, model):
    until_quiet(service)
    return learn(service, caller, model, [], "naive_bayes")


def test_retention_counts_a_replacement_in_the_place_of_the_old_version(service, tenant, caller):
    model, data, old = taught(service, tenant, caller, count=2, keep_versions=2)
    forget(service, tenant, data[0], 2)
    until_quiet(service)
    new = [replacement_of(service, version) for version in old]
    assert [as_it_is(service, version).state for version in new] == ["ready", "ready"]
    assert statistics_of(service, new[1]).rows == 31
    newest = learn(service, caller, model, [], "lda")
    until_quiet(service)
    assert [as_it_is(service, one).state for one in (*new, newest)] == ["retired", "ready", "ready"]


def test_an_update_that_waits_builds_on_the_replacement_of_its_base(service, tenant, caller):
    model, data, [first] = taught(service, tenant, caller)
    job = submit(service, caller, model, [data[1]], "analytic", base=first.number, on_conflict="extend")
    forget(service, tenant, data[0], 2)
    until_quiet(service)
    with service.db.read() as session:
        published = session.scalars(select(Version).filter_by(job_id=job.id)).one()
    assert published.parent_id == replacement_of(service, first).id
