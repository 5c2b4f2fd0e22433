"""What the runner makes of an error, and how a job reports."""

import errno
import io
import json
import logging
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy.exc import OperationalError

from app import ids, logs
from app.errors import ArtifactCorrupt, StorageFull, ValidationFailed
from app.ids import new
from app.services import jobs
from app.services.jobs import LeaseLost, Signal, Stopped
from app.services.jobs import asked as job_wishes
from app.services.jobs import reads as job_reads
from app.services.paging import Page
from tests.factories import a_job
from tests.workers.watching import read
from workers import runner
from workers.progress import Reporter, Superseded


@pytest.fixture
def stack():
    return "embedded"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValidationFailed("no such class"), "invalid-input"),
        (ArtifactCorrupt("damaged"), "artifact-corrupt"),
        (StorageFull("full"), "storage-full"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage-full"),
        (OperationalError("INSERT", {}, Exception("database or disk is full")), "storage-full"),
        (OperationalError("SELECT 1", {}, Exception("connection refused")), "dependency"),
        (MemoryError(), "out-of-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), "out-of-memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out-of-memory"),
        (Superseded("1 row was erased"), "superseded-by-erasure"),
        (RuntimeError("shapes do not match"), "internal"),
        (OSError(errno.EACCES, "Permission denied"), "dependency"),
        (OSError(errno.EIO, "Input/output error"), "dependency"),
        (OSError(errno.ESTALE, "Stale file handle"), "dependency"),
    ],
)
def test_it_names_the_cause_of_an_error(error, cause):
    assert runner.diagnose(error)[0] == cause


def test_it_tells_nothing_of_an_error_that_is_not_meant_for_callers():
    assert runner.diagnose(KeyError("/home/somebody/secret"))[1:] == ("", ())


def test_it_tells_which_field_was_wrong():
    _, detail, errors = runner.diagnose(ValidationFailed("no such class", pointer="/datasets/0"))

    assert detail == "no such class"
    assert [fault["pointer"] for fault in errors] == ["/datasets/0"]


@pytest.fixture
def claimed(service, tenant):
    a_job(service, tenant)
    return jobs.claim(service, ["cpu"], "me")


def test_progress_only_rises_and_is_written_once_a_second(service, claimed, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("workers.progress.time.monotonic", lambda: now[0])
    report = Reporter(service, claimed, lambda: Signal.CONTINUE)
    written = []
    for seconds, fraction in ((0.0, 0.1), (0.5, 0.2), (0.6, 0.3), (0.5, 0.25), (1.0, 0.2)):
        now[0] += seconds
        report(fraction, "train")
        written.append(read(service, claimed).progress["fraction"])

    assert written == [0.1, 0.1, 0.3, 0.3, 0.3]


def test_a_database_that_is_away_for_a_moment_does_not_stop_the_job(service, claimed, monkeypatch):
    def away(*_, **__):
        raise OperationalError("UPDATE jobs", {}, Exception("database is locked"))

    report = Reporter(service, claimed, lambda: Signal.CONTINUE)
    with monkeypatch.context() as absence:
        absence.setattr("app.services.jobs.progress", away)
        report(0.1, "train")
    monkeypatch.setattr("workers.progress.EVERY", 0.0)
    report(0.2, "train")

    assert read(service, claimed).progress["fraction"] == 0.2


def test_the_log_names_each_phase_once(service, claimed, monkeypatch):
    monkeypatch.setattr("workers.progress.EVERY", 0.0)
    report = Reporter(service, claimed, lambda: Signal.CONTINUE)
    for phase in ("loading", "train", "train", "saving"):
        report(0.5, phase)

    lines = job_reads.lines(service, claimed.tenant_id, claimed.id, Page(9, None), "log").rows
    assert [line.data["message"] for line in lines] == [
        "Attempt 1: loading.",
        "Attempt 1: train.",
        "Attempt 1: saving.",
    ]


def test_progress_estimates_what_is_left(service, claimed, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("workers.progress.time.monotonic", lambda: now[0])
    report = Reporter(service, claimed, lambda: Signal.CONTINUE)
    now[0] += 10
    report(0.25, "train", "epoch 1/4")

    told = {"fraction": 0.25, "phase": "train", "message": "epoch 1/4", "eta_seconds": 30}
    assert read(service, claimed).progress == told


def test_a_report_stops_the_job_when_its_worker_says_so(service, claimed):
    for signal, error in ((Signal.STOP, Stopped), (Signal.CANCEL, Stopped), (Signal.LOST, LeaseLost)):
        with pytest.raises(error):
            Reporter(service, claimed, partial(Signal, signal))(0.5)


def test_a_report_finds_a_cancellation_itself(service, caller, claimed):
    job_wishes.cancel(service, caller, claimed.id)

    with pytest.raises(Stopped):
        Reporter(service, claimed, lambda: Signal.CONTINUE)(0.5)


def test_an_unknown_kind_fails_and_is_not_tried_again(service, tenant):
    job = a_job(service, tenant, kind="unheard-of")
    claimed = jobs.claim(service, ["cpu"], "me")
    assert claimed is not None
    runner.run(service, claimed, lambda: Signal.CONTINUE)

    assert (read(service, job).state, read(service, job).error["cause"]) == ("failed", "internal")


def test_the_lines_of_a_job_name_it_and_who_asked(service, claimed, monkeypatch):
    stream = io.StringIO()

    class Module:
        @staticmethod
        def run(service, claimed, report):
            logging.getLogger("a method").warning("said")
            jobs_done(service, claimed)

    monkeypatch.setattr("workers.runner.importlib.import_module", lambda _: Module)
    named = replace(claimed, request_id="req_1", model_id=new())
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure(stream)
    try:
        runner.run(service, named, lambda: Signal.CONTINUE, {"nap": "a.module"})
        logging.getLogger("after").warning("the job")
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    said = next(line for line in lines if line["event"] == "said")
    assert (said["job_id"], said["request_id"]) == (ids.encode("job", claimed.id), "req_1")
    assert (said["tenant"], said["model"]) == (claimed.tenant_id.hex, ids.encode("mdl", named.model_id))
    assert "job_id" not in lines[-1]


def jobs_done(service, claimed):
    with service.db.begin() as session:
        jobs.finish(session, claimed, {})
