"""How far an erasure reaches: rows of a class located late, deleted models, updates that still compute."""

import json
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, select

from app import ids
from app.errors import ArtifactCorrupt
from app.services import jobs
from app.services.callers.access import digest
from app.services.erasure import ledger
from app.services.jobs import Signal
from app.services.models import models
from app.tables import Certificate, Job, ModelClass, Version, VersionDataset
from tests.services.asking import a_dataset_of, ask, now, row
from tests.services.learning import a_model, claim, job, learn, rows, run_next, submit
from workers import forget, runner

PERSONS = [["ada"], ["ben"], ["cyd"], ["dan"], ["eve"], ["fay"]]


@pytest.fixture
def stack(request):
    return getattr(request, "param", "embedded")


def until_quiet(service):
    """Run what is queued, the most urgent first; gives the jobs as they ended."""
    done = []
    while (claimed := jobs.claim(service, ["cpu", "gpu", "io"], "test")) is not None:
        runner.run(service, claimed, lambda: Signal.CONTINUE)
        done.append(job(service, claimed.id))
    return done


def as_it_is(service, version):
    with service.db.read() as session:
        return session.get_one(Version, version.id)


def opens(service, version):
    """Whether what the version learned can still be read from what is stored."""
    try:
        service.vault.open(version.statistics_file_id, service.vault.key(version.key_id))
    except ArtifactCorrupt:
        return False
    return True


def certificate(service, request):
    with service.db.read() as session:
        return json.loads(session.scalars(select(Certificate.body).filter_by(request_id=request.id)).one())


def put_off(service, model, hours):
    """Hold the forget job of a model back, or let it go."""
    with service.db.begin() as session:
        waiting = session.scalars(select(Job).filter_by(kind="forget", lane=model.id, state="queued")).one()
        waiting.not_before += timedelta(hours=hours)


@pytest.mark.parametrize("maker", ["update", "forget"])
def test_a_class_goes_from_a_version_made_between_its_approval_and_the_location_of_its_rows(
    service, tenant, caller, maker
):
    named, other = a_model(service, caller), a_model(service, caller)
    data = a_dataset_of(service, tenant.id, rows(ant=4, bee=4, cat=4), [["ada"]])
    learn(service, caller, named, [data], "analytic")
    if maker == "forget":
        learn(service, caller, other, [data], "analytic")
    with service.db.read() as session:
        cat = session.scalars(select(ModelClass.id).filter_by(model_id=named.id, name="cat")).one()
    asked = ask(service, caller, [ids.encode("cls", cat)], scope="class")
    if maker == "forget":
        ask(service, caller, ["ada"])
    else:
        submit(service, caller, other, [data], "analytic")
    put_off(service, named, 1)
    made = run_next(service)
    assert (made.kind, made.lane, made.state) == (maker, other.id, "succeeded")
    with service.db.read() as session:
        newest = select(Version).filter_by(model_id=other.id).order_by(Version.number.desc()).limit(1)
        between = session.scalars(newest).one()
    put_off(service, named, -1)
    assert run_next(service).lane == named.id
    with service.db.read() as session:
        assert ledger.tainted(session, [between.id]) == {between.id: 1}

    until_quiet(service)
    assert now(service, caller, asked).state == "completed"
    left = as_it_is(service, between)
    assert (left.state, left.metrics) == ("purged", {})
    assert not opens(service, between)
    with service.db.read() as session:
        assert session.scalars(newest).one().replaces_id == between.id
        assert ledger.tainted(session, session.scalars(select(Version.id).filter_by(state="ready"))) == {}


def test_the_versions_of_a_deleted_model_go_with_the_erasure_before_its_own_purge(service, tenant, caller):
    model = a_model(service, caller)
    data = a_dataset_of(service, tenant.id, rows(ant=3, bee=3), PERSONS)
    first = learn(service, caller, model, [data], "analytic")
    second = learn(service, caller, model, [], "naive_bayes")
    models.remove(service, caller, model.id, lambda revision: None)
    asked = ask(service, caller, ["ada"])
    purge = run_next(service)

    assert "erasure" in purge.request
    assert not opens(service, first)
    assert now(service, caller, asked).state == "completed"
    for version in (first, second):
        left = as_it_is(service, version)
        assert (left.state, left.metrics) == ("purged", {})
        with pytest.raises(ArtifactCorrupt):
            service.vault.open(version.file_id, service.vault.key(version.key_id))
    signed = certificate(service, asked)
    assert [one["replacing"] for one in signed["versions"]] == [None, None]
    assert signed["found"]["versions"] == row(service, asked.id).evidence["purge"]["versions"] == 2
    [own] = until_quiet(service)
    assert (own.request, own.state) == ({"model": model.id.hex}, "succeeded")


@pytest.mark.parametrize("stack", ["embedded", "production"], indirect=True)
@pytest.mark.parametrize("moment", ["queued", "running", "failed"])
def test_a_request_goes_on_when_the_model_that_it_waits_for_is_deleted(
    service, tenant, caller, monkeypatch, moment
):
    model, other = a_model(service, caller), a_model(service, caller)
    data = a_dataset_of(service, tenant.id, rows(ant=3, bee=3), PERSONS)
    gone = learn(service, caller, model, [data], "analytic")
    learn(service, caller, other, [data], "analytic")
    asked, joined = ask(service, caller, ["ada"]), ask(service, caller, ["ada"])
    put_off(service, other, 1)

    def remove():
        models.remove(service, caller, model.id, lambda revision: None)

    if moment == "running":
        prepare = forget._prepare
        with monkeypatch.context() as patch:
            patch.setattr(forget, "_prepare", lambda *args: (remove(), prepare(*args))[1])
            assert run_next(service).state == "cancelled"
    elif moment == "failed":
        with monkeypatch.context() as patch:
            patch.setattr(forget, "_prepare", lambda *args: 1 / 0)
            assert run_next(service).state == "failed"
        assert now(service, caller, asked).state == "failed"
    if moment != "running":
        remove()
    assert now(service, caller, asked).state == "locating"
    put_off(service, other, -1)
    until_quiet(service)
    for request in (asked, joined):
        assert now(service, caller, request).state == "completed"
    assert not opens(service, gone)
    named = {one["model"] for one in certificate(service, asked)["versions"]}
    assert named == {ids.encode("mdl", one.id) for one in (model, other)}


@pytest.mark.parametrize("scope", ["subject", "class"])
def test_an_update_that_reads_the_rows_is_stopped_before_the_certificate_is_signed(
    service, tenant, caller, scope
):
    known, fresh = a_model(service, caller), a_model(service, caller)
    data = a_dataset_of(service, tenant.id, rows(ant=2, bee=2, cow=2), PERSONS)
    target = "ada"
    if scope == "class":
        learn(service, caller, known, [data], "analytic")
        with service.db.read() as session:
            bee = session.scalars(select(ModelClass.id).filter_by(model_id=known.id, name="bee")).one()
        target = ids.encode("cls", bee)
    submit(service, caller, fresh, [data], "analytic")
    running = claim(service, "cpu")
    asked = ask(service, caller, [target], scope=scope)
    if scope == "class":
        assert run_next(service).lane == known.id
    assert jobs.look(service, running) is Signal.STOP
    assert jobs.claim(service, ["cpu", "io"], "test") is None, "nothing is purged while the update runs"
    assert now(service, caller, asked).state == "locating"

    jobs.requeue(service, running, "superseded")
    done = until_quiet(service)
    kinds = [(one.kind, one.lane) for one in done if one.lane in (fresh.id, tenant.id)]
    assert kinds == [("forget", fresh.id), ("purge", tenant.id), ("update", fresh.id)]
    assert {one.state for one in done} == {"succeeded"}
    assert now(service, caller, asked).state == "completed"
    with service.db.read() as session:
        [made] = session.scalars(select(Version).filter_by(model_id=fresh.id))
        [edge] = session.scalars(select(VersionDataset).filter_by(version_id=made.id, role="train"))
    assert edge.left_out == ([0] if scope == "subject" else [1, 4])


def test_an_update_of_rows_that_nobody_erases_goes_on(service, tenant, caller):
    a_dataset_of(service, tenant.id, rows(ant=3, bee=3), PERSONS)
    other = a_dataset_of(service, tenant.id, rows(ant=3, bee=3), [["gil"]])
    submit(service, caller, a_model(service, caller), [other], "analytic")
    running = claim(service, "cpu")
    asked = ask(service, caller, ["ada"])
    assert jobs.look(service, running) is Signal.CONTINUE
    assert now(service, caller, asked).state == "purging"


def test_nothing_is_signed_while_a_reader_keeps_what_was_erased_in_the_journal(service, tenant, caller):
    a_dataset_of(service, tenant.id, rows(ant=3, bee=3), PERSONS)
    asked = ask(service, caller, ["ada"])
    journal = Path(f"{service.db.engine.url.database}-wal")
    event.listen(service.db.engine, "checkout", lambda raw, *_: raw.execute("PRAGMA busy_timeout=50"))
    reader = sqlite3.connect(service.db.engine.url.database, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM sample_subjects").fetchone()

    purge = run_next(service)
    assert (purge.state, purge.attempt) == ("queued", 0)
    assert now(service, caller, asked).state == "purging"
    digest_of = digest(service, tenant.id, "ada").encode()
    assert digest_of in journal.read_bytes()

    reader.close()
    with service.db.begin() as session:
        session.get_one(Job, purge.id).not_before = purge.created_at
    assert run_next(service).state == "succeeded"
    assert now(service, caller, asked).state == "completed"
    assert digest_of not in journal.read_bytes()
