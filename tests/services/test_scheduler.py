"""What the scheduler finds: duties, old answers, failed purges, files that nobody names."""

import os
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.db import clock
from app.ids import new
from app.services import jobs, scheduler
from app.services.backups import under_way
from app.services.callers import idempotency
from app.services.callers.idempotency import Once
from app.services.erasure import orphans
from app.services.jobs import Cause
from app.services.scheduler import Scheduler, hold, release
from app.tables import Checkpoint, Dataset, Holder, IdempotencyRecord, Job, Model, Restore, Upload
from app.vault import new_key
from tests.factories import a_job

HOUR = 3600


def test_one_process_holds_a_duty(service):
    assert hold(service, "sweep", "first")
    assert not hold(service, "sweep", "second")
    assert hold(service, "sweep", "first")

    release(service, "sweep", "first")
    assert hold(service, "sweep", "second")


def test_a_duty_lapses_with_its_holder(service):
    hold(service, "sweep", "dead")
    with service.db.begin() as session:
        session.execute(update(Holder).values(expires_at=clock(session) - timedelta(seconds=1)))

    assert hold(service, "sweep", "alive")
    assert not hold(service, "sweep", "dead")


def test_a_sweep_goes_on_where_a_part_of_it_fails(service, tenant, monkeypatch):
    def broken(service):
        raise OSError("gone")

    broken.__name__ = "broken"
    monkeypatch.setattr("app.services.jobs.sweep", broken)
    add_answer(service, tenant, age=timedelta(hours=73))

    Scheduler(service).sweep()

    assert answers(service) == []


def add_answer(service, tenant, age, **given):
    with service.db.begin() as session:
        record = IdempotencyRecord(
            id=new(),
            created_at=clock(session) - age,
            tenant_id=tenant.id,
            route="POST /v1/models",
            key=new().hex,
            fingerprint="f",
            status=given.get("status", 201),
        )
        session.add(record)
        return record.key


def answers(service):
    with service.db.read() as session:
        return session.scalars(select(IdempotencyRecord.key)).all()


def test_answers_are_kept_for_three_days(service, tenant):
    add_answer(service, tenant, age=timedelta(hours=73))
    young = add_answer(service, tenant, age=timedelta(hours=71))

    scheduler.expire_answers(service)

    assert answers(service) == [young]


# purges


def a_dataset(service, tenant):
    with service.db.begin() as session:
        now = clock(session)
        row = Dataset(
            id=new(),
            created_at=now,
            tenant_id=tenant.id,
            name="d",
            format="npy",
            kind="rows",
            shape=[2],
            dtype="float32",
            rows=1,
            train_rows=1,
            eval_rows=0,
            has_labels=False,
            has_targets=False,
            classes={},
            report={},
            deleted_at=now,
        )
        session.add(row)
        return row


def a_model(service, tenant):
    with service.db.begin() as session:
        now = clock(session)
        row = Model(
            id=new(),
            created_at=now,
            tenant_id=tenant.id,
            name="m",
            task="classification",
            input={},
            grid="normalised",
            network={},
            gates={},
            min_centroid_rows=5,
            deleted_at=now,
        )
        session.add(row)
        return row


def claim(service):
    claimed = jobs.claim(service, ["io"], "me")
    assert claimed is not None
    return claimed


def purges(service):
    with service.db.read() as session:
        return session.scalars(select(Job).where(Job.kind == "purge").order_by(Job.created_at)).all()


def test_a_deletion_whose_purge_failed_is_carried_out_later(service, tenant):
    dataset, model = a_dataset(service, tenant), a_model(service, tenant)
    assert scheduler.resume_purges(service) == 2
    assert [job.request for job in purges(service)] == [{"dataset": dataset.id.hex}, {"model": model.id.hex}]
    assert scheduler.resume_purges(service) == 0

    jobs.fail(service, claim(service), Cause.INTERNAL)
    assert scheduler.resume_purges(service) == 0
    with service.db.begin() as session:
        long_ago = clock(session) - timedelta(hours=2)
        session.execute(update(Job).values(created_at=long_ago))
    assert scheduler.resume_purges(service) == 1


def test_a_purge_that_succeeded_is_not_repeated(service, tenant):
    a_dataset(service, tenant)
    scheduler.resume_purges(service)
    claimed = claim(service)
    with service.db.begin() as session:
        jobs.finish(session, claimed, {})
        session.execute(update(Job).values(created_at=clock(session) - timedelta(hours=2)))

    assert scheduler.resume_purges(service) == 0


# files


def stored(service, age=2 * HOUR):
    """A sealed file and its key object, written that long ago."""
    file_id, key_id = new(), new()
    service.vault.write_key(key_id, service.vault.seal(file_id, [b"rows"], new_key()))
    for files, id in ((service.vault.files, file_id), (service.vault.keys, key_id)):
        long_ago = time.time() - age
        os.utime(files._path(id), (long_ago, long_ago))
    return file_id, key_id


def left(files):
    return {UUID(hex=path.name) for path in files.root.glob("[0-9a-f][0-9a-f]/*")}


def an_upload(service, tenant, file_id, key_id):
    with service.db.begin() as session:
        session.add(
            Upload(
                id=new(),
                created_at=clock(session),
                tenant_id=tenant.id,
                name="w",
                bytes=4,
                tensors={},
                file_id=file_id,
                key_id=key_id,
            )
        )


def test_files_and_keys_that_no_row_names_go_after_an_hour(service, tenant):
    named, orphan, young = stored(service), stored(service), stored(service, age=60)
    an_upload(service, tenant, *named)

    assert orphans.remove_orphans(service) == 2
    assert left(service.vault.files) == {named[0], young[0]}
    assert left(service.vault.keys) == {named[1], young[1], tenant.id}
    assert orphan[0] not in left(service.vault.files)


def test_a_tenants_key_stays_however_old(service, tenant):
    long_ago = time.time() - 1000 * HOUR
    os.utime(service.vault.keys._path(tenant.id), (long_ago, long_ago))

    orphans.remove_orphans(service)

    assert tenant.id in left(service.vault.keys)


@pytest.mark.parametrize("writer", ["upload", "job"])
def test_nothing_goes_that_a_writer_under_way_may_still_name(service, tenant, writer, monkeypatch):
    stored(service)
    upload: AbstractContextManager[object] = nullcontext()
    if writer == "upload":
        monkeypatch.setattr(idempotency, "RENEW_SECONDS", 0.01)
        upload = idempotency.reserved(service, Once(tenant.id, "POST /v1/datasets", "key"))
    else:
        a_job(service, tenant)
        jobs.claim(service, ["cpu"], "me")
    with upload:
        begun_long_ago(service)
        assert orphans.remove_orphans(service) == 0


def begun_long_ago(service):
    """Put the start of what is under way three hours back, and wait until an upload is renewed after it."""
    with service.db.begin() as session:
        then = clock(session) - timedelta(hours=3)
        session.execute(update(Job).values(started_at=then))
        session.execute(update(IdempotencyRecord).values(created_at=then, renewed_at=then))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with service.db.read() as session:
            if then not in session.scalars(select(IdempotencyRecord.renewed_at)).all():
                return
        time.sleep(0.01)
    raise AssertionError("the upload was never renewed")


def test_half_written_files_go(service):
    half = service.vault.files.temporary / "half.1"
    half.write_bytes(b"rows")
    os.utime(half, (time.time() - 2 * HOUR,) * 2)

    assert orphans.remove_orphans(service) == 1
    assert not half.exists()


def test_a_finished_jobs_checkpoint_is_destroyed(service, tenant):
    running, finished = (a_job(service, tenant) for _ in range(2))
    kept, dropped = stored(service), stored(service)
    for job, (file_id, key_id) in ((running, kept), (finished, dropped)):
        with service.db.begin() as session:
            session.add(
                Checkpoint(
                    id=new(),
                    created_at=clock(session),
                    job_id=job.id,
                    ledger_sequence=0,
                    left_out={},
                    file_id=file_id,
                    key_id=key_id,
                )
            )
    with service.db.begin() as session:
        session.execute(update(Job).where(Job.id == finished.id).values(state="failed"))

    assert jobs.drop_checkpoints(service) == 1
    assert left(service.vault.files) == {kept[0]}
    assert dropped[1] not in left(service.vault.keys)
    assert jobs.drop_checkpoints(service) == 0


def test_a_restore_ends_when_nothing_is_left_to_take_out(service, tenant):
    add_restore(service, {"erasures_applied": 1})
    job = a_job(service, tenant, kind="forget")

    Scheduler(service).sweep()
    assert is_restoring(service)
    with service.db.begin() as session:
        session.get_one(Job, job.id).state = "succeeded"
    Scheduler(service).sweep()
    assert not is_restoring(service)


def test_a_restore_that_was_interrupted_is_not_ended(service, tenant):
    add_restore(service, {})

    Scheduler(service).sweep()

    assert is_restoring(service)


def add_restore(service, report):
    with service.db.begin() as session:
        now = clock(session)
        session.add(Restore(id=new(), created_at=now, taken_at=now, ledger_sequence=0, report=report))


def is_restoring(service):
    with service.db.read() as session:
        return under_way.is_open(session)
