"""Versions made again from the stored rows by the code that learns, and the job that says so."""

import pytest
import torch
from sqlalchemy import delete
from threadpoolctl import threadpool_info

from app.methods.base import Context
from app.services import jobs
from app.services.certificates import rebuilds, verification
from app.services.jobs import Signal
from app.tables import ForgetRequest, RestrictedRow, Version
from tests.conftest import STACKS
from tests.services.certificates.forgetting import a_request, forgotten, issued, replaced
from tests.services.learning import a_dataset, a_model, claim, job, learn, restrict, rows, run_next, submit
from workers import runner, verify

METHODS = [
    ("analytic", {"weights": "classes"}),
    ("lda", {}),
    ("naive_bayes", {"smoothing": 0.01}),
    ("ncm", {"metric": "euclidean"}),
    ("teen", {"shots": 6, "tau": 4.0}),
    ("fetril", {"solver": "closed_form"}),
    ("fetril", {"solver": "svm"}),
]


@pytest.fixture
def stack(request):
    return getattr(request, "param", "embedded")


@pytest.fixture
def at_once(monkeypatch):
    """Verify jobs are due when they are queued."""
    monkeypatch.setattr(verification, "WAIT_SECONDS", 0.0)


def queue(service, *requests):
    with service.db.begin() as session:
        return verification.queue(session, [session.get_one(ForgetRequest, one.id) for one in requests])


def rebuilt(service, version):
    return rebuilds.rebuild(service, version.id, Context())


def in_steps(service, tenant, caller, method, params, **changes):
    """A version of three updates, the second of which brings rows that were left out of the first."""
    model = a_model(service, caller, **changes)
    first, second = (a_dataset(service, tenant.id, rows(ant=9, bee=8), seed=seed) for seed in (1, 2))
    request = restrict(service, first, 0, 3)
    learn(service, caller, model, [first], method, params)
    with service.db.begin() as session:
        session.execute(delete(RestrictedRow).where(RestrictedRow.request_id == request))
    learn(service, caller, model, [second, first], "ncm", on_conflict="extend")
    third = a_dataset(service, tenant.id, rows(cat=5, dog=8), seed=3)
    return learn(service, caller, model, [third], method, params)


@pytest.mark.parametrize(("method", "params"), METHODS)
def test_a_version_of_several_updates_is_made_again_from_its_rows(service, tenant, caller, method, params):
    version = in_steps(service, tenant, caller, method, params)

    assert rebuilt(service, version).outcome == "equal", rebuilt(service, version)


def test_a_regression_is_made_again(service, tenant, caller):
    shape = {"kind": "vector", "shape": [4], "target": {"exponent": -8}}
    model = a_model(service, caller, task="regression", input=shape, ridge="gcv")
    for seed in (1, 2):
        targets = [0.5 * i - 3 for i in range(12)]
        rows_ = a_dataset(service, tenant.id, [None] * 12, seed=seed, targets=targets)
        version = learn(service, caller, model, [rows_], "ridge_regression")

    assert rebuilt(service, version).outcome == "equal"


def test_a_version_that_was_made_in_another_way_differs(service, tenant, caller):
    done = forgotten(service, tenant, caller)
    with service.db.begin() as session:
        session.get_one(Version, done.new.id).params = {"weights": "classes"}

    found = rebuilt(service, done.new)

    assert (found.outcome, found.reason) == ("different", "weights")
    assert found.residual > 0
    assert found.line()["equal"] is False


def test_what_is_no_longer_there_cannot_be_made_again(service, tenant, caller):
    done = forgotten(service, tenant, caller)
    found = rebuilt(service, done.old)
    assert (found.outcome, found.reason) == ("skipped", "version 1 was replaced by version 2")

    with service.db.begin() as session:
        session.get_one(Version, done.new.id).method = "import"
    assert rebuilt(service, done.new).outcome == "cannot"


def test_a_network_is_trained_again(service, tenant, caller):
    network = {"name": "mlp", "params": {"hidden": [4]}}
    done = forgotten(service, tenant, caller, "supervised", {"epochs": 2}, network=network)

    assert rebuilt(service, done.new).outcome == "equal"


@pytest.mark.parametrize("stack", STACKS, indirect=True)
@pytest.mark.usefixtures("at_once")
def test_the_verify_job_adds_a_line_to_each_request_that_shares_a_version(service, tenant, caller):
    done = forgotten(service, tenant, caller)
    other, stranger = (a_request(service, tenant) for _ in range(2))
    replaced(service, other, done.old, done.new)
    assert [len(queue(service, *some)) for some in ([done.request], [other, stranger])] == [1, 0]

    ended = run_next(service)

    assert (ended.kind, ended.state, ended.result) == ("verify", "succeeded", {"versions": 1, "equal": 1})
    with service.db.read() as session:
        for one in (done.request, other):
            (line,) = session.get_one(ForgetRequest, one.id).evidence["rebuilds"]
            assert (line["outcome"], line["number"]) == ("equal", 2)
        assert "rebuilds" not in session.get_one(ForgetRequest, stranger.id).evidence
    assert b'"status":"exact_verified"' in issued(service, done.request)


def test_the_verify_job_waits_for_requests_that_follow(service, tenant, caller):
    done = forgotten(service, tenant, caller)
    other = a_request(service, tenant)
    replaced(service, other, done.old, done.new)

    (made,) = queue(service, done.request)
    assert jobs.claim(service, ["cpu"], "test") is None
    assert queue(service, other, done.request) == []

    found = job(service, made.id)
    assert (found.not_before - found.queued_at).total_seconds() == verification.WAIT_SECONDS == 10
    assert found.request == {"forget_requests": [done.request.id.hex, other.id.hex]}


@pytest.mark.usefixtures("at_once")
def test_a_version_that_was_replaced_meanwhile_is_skipped_and_the_line_says_so(service, tenant, caller):
    done = forgotten(service, tenant, caller)
    queue(service, done.request)
    with service.db.begin() as session:
        session.get_one(Version, done.new.id).state = "retired"
    later = learn(service, caller, done.model, [done.dataset], "analytic", on_conflict="extend")
    replaced(service, a_request(service, tenant), done.new, later)

    ended = run_next(service)

    assert (ended.state, ended.result) == ("succeeded", {"versions": 1, "equal": 0})
    with service.db.read() as session:
        (line,) = session.get_one(ForgetRequest, done.request.id).evidence["rebuilds"]
    assert (line["outcome"], line["reason"]) == ("skipped", "version 2 was replaced by version 3")


@pytest.mark.usefixtures("at_once")
def test_the_verify_job_computes_with_half_of_the_threads(service, tenant, caller, monkeypatch):
    seen = []
    rebuild = rebuilds.rebuild

    def watched(*args):
        seen.append(torch.get_num_threads())
        seen.extend(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")
        return rebuild(*args)

    monkeypatch.setattr(rebuilds, "rebuild", watched)
    queue(service, forgotten(service, tenant, caller).request)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert run_next(service).result == {"versions": 1, "equal": 1}
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)

    assert seen[0] == 2
    assert max(seen) == 2


def test_what_depends_on_the_number_of_threads_is_rebuilt_with_as_many_as_it_was_learned_with():
    assert verify.is_closed_form("analytic", {"weights": "classes"})
    assert verify.is_closed_form("fetril", {"solver": "closed_form"})
    assert not verify.is_closed_form("fetril", {"solver": "svm"})
    assert not verify.is_closed_form("fetril", {"solver": "softmax"})
    assert not verify.is_closed_form("supervised", {"epochs": 2})


@pytest.mark.usefixtures("at_once")
def test_the_verify_job_gives_way_to_more_urgent_work(service, tenant, caller, monkeypatch):
    monkeypatch.setattr(verify, "EVERY", 0.0)
    done = forgotten(service, tenant, caller)
    queue(service, done.request)
    claimed = claim(service, "cpu")
    submit(service, caller, a_model(service, caller), [done.dataset])

    runner.run(service, claimed, lambda: Signal.CONTINUE)

    assert job(service, claimed.id).state == "queued"
    assert [run_next(service).kind for _ in range(2)] == ["update", "verify"]
    assert job(service, claimed.id).result == {"versions": 1, "equal": 1}
