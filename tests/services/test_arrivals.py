"""Arrivals: in pieces into the tables, and out again if anything fails or the process died."""

from __future__ import annotations

import threading
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from app.db import clock
from app.errors import SubjectErased
from app.ids import new
from app.intake.clean import Options
from app.intake.media import Format
from app.services.callers import access
from app.services.datasets import arrivals, duplicates, shards, staging
from app.services.datasets.arrivals import Arrival
from app.services.scheduler import resume_purges
from app.tables import Dataset, IdempotencyRecord, LedgerEntry, LedgerTarget, Sample, SampleSubject, Shard
from tests.services.sent import send

X = np.arange(90, dtype=np.float32).reshape(30, 3)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("app.intake.rows.BLOCK_ROWS", 10)
    monkeypatch.setattr("app.services.datasets.staging.STAGED", 4)


def count(service, table):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_every_row_that_names_somebody_is_in_the_tables(service, caller):
    dataset = send(service, caller, x=X, subject=[f"person-{i % 7}" if i % 2 else "" for i in range(30)])

    digest = access.digester(service, caller.tenant_id)
    with service.db.read() as session:
        found = session.execute(select(SampleSubject.position, SampleSubject.subject_digest)).all()
        row = session.get_one(Dataset, dataset.id)
    assert {tuple(one) for one in found} == {(i, digest(f"person-{i % 7}")) for i in range(1, 30, 2)}
    assert count(service, Sample) == 15
    assert (row.arriving, row.deleted_at) == (False, None)


def test_rows_that_name_nobody_cost_no_row(service, caller):
    send(service, caller, x=X)

    assert count(service, Sample) == 0
    assert count(service, Shard) == 3


def test_others_can_write_between_two_parts(service, caller, monkeypatch):
    """The whole intake never holds the writer's lock: another transaction commits at every part."""
    commits = []
    real = staging.stage

    def staged(session, *args):
        real(session, *args)
        thread = threading.Thread(target=lambda: commits.append(count(service, Dataset)))
        thread.start()
        thread.join()

    monkeypatch.setattr("app.services.datasets.arrivals.staging.stage", staged)
    send(service, caller, x=X, sample_id=[f"row-{i}" for i in range(30)])

    assert len(commits) == 9


def test_an_erasure_that_comes_meanwhile_is_seen_at_the_commit(service, caller, monkeypatch):
    real = Arrival.publish

    def late(self, *args):
        with service.db.begin() as session:
            entry = LedgerEntry(
                tenant_id=caller.tenant_id,
                request_id=new(),
                kind="approve",
                scope="subject",
                actor="test",
                created_at=clock(session),
            )
            session.add(entry)
            session.flush()
            digest = access.digest(service, caller.tenant_id, "Ada")
            target = LedgerTarget(
                sequence=entry.sequence, target=f"subject:{digest}", tenant_id=caller.tenant_id
            )
            session.add(target)
        return real(self, *args)

    monkeypatch.setattr(Arrival, "publish", late)
    with pytest.raises(SubjectErased):
        send(service, caller, x=X, subject=["Ada"] * 30)

    assert [count(service, table) for table in (Dataset, Shard, Sample, SampleSubject)] == [0, 0, 0, 0]


def test_what_a_killed_process_left_arriving_is_swept(service, caller):
    dataset = send(service, caller, x=X, sample_id=[f"row-{i}" for i in range(30)])
    with service.db.begin() as session:
        for shard in session.scalars(select(Shard)):
            session.delete(shard)
        row = session.get_one(Dataset, dataset.id)
        row.arriving, row.deleted_at = True, row.created_at

    assert staging.sweep(service) == 0  # it may still be on its way
    assert resume_purges(service) == 0
    with service.db.begin() as session:
        row = session.get_one(Dataset, dataset.id)
        row.created_at -= timedelta(seconds=service.settings.jobs.orphan_seconds + 1)

    assert staging.sweep(service) == 1
    assert [count(service, table) for table in (Dataset, Sample)] == [0, 0]


def test_another_process_knows_duplicates_too(service, caller):
    """A fresh index learns from the key objects of live datasets."""
    dataset = send(service, caller, x=X)
    marks = service.vault.key(dataset.id).digests
    duplicates._indices.clear()

    assert duplicates.find(service, caller.tenant_id, marks) == dataset.id
    assert duplicates.find(service, new(), marks) is None


def test_an_erasure_takes_the_digest_and_with_it_the_duplicate(service, caller):
    dataset = send(service, caller, x=X)
    marks = service.vault.key(dataset.id).digests
    service.vault.destroy(dataset.id)

    assert duplicates.find(service, caller.tenant_id, marks) is None


def test_the_digest_of_the_bytes_is_in_no_row(service, caller):
    dataset = send(service, caller, x=X)
    digests = service.vault.key(dataset.id).digests

    with service.db.read() as session:
        tables = (Dataset.__table__, Shard.__table__, IdempotencyRecord.__table__)
        rows = "".join(repr(session.execute(select(table)).all()) for table in tables)
    assert all(digest not in rows for digest in digests.values())
    assert set(digests) == {"sha256", "upload", "meaning"}


def test_a_commit_whose_answer_was_lost_keeps_everything(service, caller, monkeypatch):
    """The connection breaks after the commit: the caller hears of a failure, the dataset is there."""
    kept = []
    real = Arrival.publish

    def lost(self, *args):
        kept.append(real(self, *args))
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(Arrival, "publish", lost)
    with pytest.raises(OperationalError):
        send(service, caller, x=X, sample_id=[f"row-{i}" for i in range(30)])

    assert np.array_equal(np.concatenate([b.x for b in shards.read(service, kept[0].id)]), X)
    assert count(service, Sample) == 30


def test_discarding_twice_is_harmless(service, caller):
    arrival = Arrival(service, caller, Format.NPZ, Options())

    arrival.discard()
    arrival.discard()

    assert arrivals.location(arrival.id).startswith("/v1/datasets/dst_")
