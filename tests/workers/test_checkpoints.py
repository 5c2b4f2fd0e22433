"""What a lost worker leaves for its successor."""

from contextlib import contextmanager

import pytest
import torch
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from app.services import jobs
from app.services.jobs import LeaseLost
from app.services.jobs import reads as job_reads
from app.services.paging import Page
from app.tables import Checkpoint, Job
from tests.services.learning import a_dataset, a_model, erase, rows, submit
from workers.checkpoints import JobCheckpoint
from workers.progress import Superseded

DATASET = "a" * 32
STATE = {"weight": torch.arange(6.0).reshape(2, 3), "epoch": torch.tensor(4)}


@pytest.fixture
def claimed(service, tenant, caller):
    submit(service, caller, a_model(service, caller), [a_dataset(service, tenant.id, rows(ant=2, bee=2))])
    return jobs.claim(service, ["cpu"], "test")


def a_checkpoint(service, claimed, params=None, **left_out):
    return JobCheckpoint(service, claimed, ledger_sequence=0, left_out=left_out, params=params or {})


def test_gives_back_the_newest_state(service, claimed):
    checkpoint = a_checkpoint(service, claimed)
    checkpoint.save({"weight": torch.zeros(1)})
    checkpoint.save(STATE)
    found = a_checkpoint(service, claimed).load()
    assert sorted(found) == ["epoch", "weight"]
    torch.testing.assert_close(found["weight"], STATE["weight"], rtol=0, atol=0)
    assert found["epoch"] == 4


def test_has_nothing_before_the_first_state(service, claimed):
    assert a_checkpoint(service, claimed).load() is None


def test_keeps_one_state_and_destroys_the_one_before(service, claimed):
    checkpoint = a_checkpoint(service, claimed)
    checkpoint.save(STATE)
    first = row(service)
    checkpoint.save(STATE)
    assert count(service) == 1
    with pytest.raises(FileNotFoundError):
        service.vault.keys.open(first.key_id)
    with pytest.raises(FileNotFoundError):
        service.vault.files.open(first.file_id)


def test_does_not_resume_a_state_that_other_rows_made(service, claimed):
    a_checkpoint(service, claimed, **{DATASET: [1]}).save(STATE)
    assert a_checkpoint(service, claimed, **{DATASET: [1, 2]}).load() is None
    assert a_checkpoint(service, claimed, **{DATASET: [1]}).load() is not None


def test_does_not_resume_a_state_that_other_parameters_made(service, claimed):
    a_checkpoint(service, claimed, {"batch_size": 64}).save(STATE)
    assert a_checkpoint(service, claimed, {"batch_size": 32}).load() is None
    assert a_checkpoint(service, claimed, {"batch_size": 64}).load() is not None


def test_a_state_that_the_database_does_not_take_stops_nobody(service, claimed, monkeypatch):
    checkpoint = a_checkpoint(service, claimed)
    checkpoint.save(STATE)
    begin = service.db.begin

    @contextmanager
    def away_at_the_commit():
        with begin() as session:
            yield session
        raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    with monkeypatch.context() as absence:
        absence.setattr(service.db, "begin", away_at_the_commit)
        checkpoint.save({"epoch": torch.tensor(5)})  # nobody knows whether the commit came through: it did
    assert checkpoint.load()["epoch"] == 5


def test_tells_the_log_that_it_resumed(service, claimed):
    a_checkpoint(service, claimed).save(STATE)
    a_checkpoint(service, claimed).load()
    lines = job_reads.lines(service, claimed.tenant_id, claimed.id, Page(9, None), "log").rows
    assert [line.data["message"] for line in lines] == ["Attempt 1: goes on from a checkpoint."]


def test_does_not_resume_a_damaged_state(service, claimed):
    checkpoint = a_checkpoint(service, claimed)
    checkpoint.save(STATE)
    service.vault.files.delete(row(service).file_id)
    assert checkpoint.load() is None


def test_saves_nothing_for_a_job_that_is_somebody_elses(service, claimed):
    with service.db.begin() as session:
        session.get_one(Job, claimed.id).lease_epoch += 1
    with pytest.raises(LeaseLost):
        a_checkpoint(service, claimed).save(STATE)
    assert count(service) == 0


def row(service):
    with service.db.read() as session:
        return session.scalars(select(Checkpoint)).one()


def count(service):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(Checkpoint))


def test_a_state_made_of_rows_that_were_erased_meanwhile_is_not_stored(service, tenant, claimed):
    data = a_dataset(service, tenant.id, rows(ant=3))
    checkpoint = a_checkpoint(service, claimed, **{data.id.hex: [1]})
    checkpoint.save(STATE)
    before = row(service)
    erase(service, tenant.id, data, 2)
    stored = files(service)
    with pytest.raises(Superseded):
        checkpoint.save(STATE)
    assert files(service) == stored
    assert row(service).key_id == before.key_id


def files(service):
    folders = service.settings.objects_dir, service.settings.keys_dir
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}
