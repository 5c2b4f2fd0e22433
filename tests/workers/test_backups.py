"""Backup and restore: what was erased after a backup does not come back with it."""

from __future__ import annotations

import shutil

import pytest
from sqlalchemy import select

from app.config import Files, Jobs, Settings
from app.errors import ArtifactCorrupt, InUse, MissingData
from app.service import Service, open_service
from app.services.backups import backup, reconcile, under_way
from app.services.backups import restore as restoring
from app.services.backups.restore import restore
from app.services.datasets import shards
from app.services.erasure import purges
from app.services.models import snapshots
from app.services.readiness import _check
from app.tables import Dataset, ForgetRequest, Restore, Sample, SampleSubject, Shard, Version
from tests.conftest import STACKS
from tests.services.forgetting import approved, rows_of
from tests.services.learning import learn, run_all, statistics_of
from tests.workers.test_exact_heads import an_exact_model, many, sent

both_stacks = pytest.mark.parametrize("stack", STACKS, indirect=True)


@pytest.fixture
def stack(request):
    """Embedded, but for what the dump of a database, or its transactions, can change."""
    return getattr(request, "param", "embedded")


def quiet(done, total, what):
    assert 0 <= done <= max(total, 1)


@pytest.fixture
def elsewhere(service, tmp_path, request, stack):
    """Opens a service with an empty database, the mirrored keys and ledger, and the files of `objects`."""
    opened: list[Service] = []

    def open_it(keys=None, objects=None):
        folder = tmp_path / f"elsewhere-{len(opened)}"
        folder.mkdir()
        settings = Settings(
            data_dir=folder,
            files=Files(keys=keys or service.settings.keys_dir, objects=objects),
            jobs=Jobs(),
            broker=service.settings.broker,
        )
        if stack == "production":
            context = request.getfixturevalue("servers").database()
            settings = settings.model_copy(
                update={"database": service.settings.database.model_copy(update={"url": context.__enter__()})}
            )
            request.addfinalizer(lambda: context.__exit__(None, None, None))
        opened.append(open_service(settings))
        return opened[-1]

    yield open_it
    for one in opened:
        one.close()


def taught(service, tenant, caller):
    """A model with two versions by `analytic`, and its two datasets."""
    labels, x = many()
    model = an_exact_model(service, caller)
    data = [sent(service, tenant, labels, x, part) for part in (range(0, 16), range(16, 32))]
    versions = [learn(service, caller, model, [one], "analytic", on_conflict="extend") for one in data]
    return model, data, versions


def digests(service, version):
    return {
        name: value
        for name, value in service.vault.key(version.key_id).digests.items()
        if name in ("weights", "statistics")
    }


def ready(service, model):
    with service.db.read() as session:
        query = select(Version).filter_by(model_id=model.id, state="ready").order_by(Version.number)
        return list(session.scalars(query))


@both_stacks
def test_a_restored_backup_is_what_it_was_a_copy_of(service, tenant, caller, tmp_path, elsewhere):
    _, data, versions = taught(service, tenant, caller)
    manifest = backup.write(service, tmp_path / "backup", quiet)
    other = elsewhere()

    report = restore(other, tmp_path / "backup", [], quiet)

    assert manifest.missing == 0
    assert {name for name, count in report.items() if count} == set()
    loaded = [snapshots.load(other, version.id).snapshot for version in versions]
    assert [one.head and one.head.digest(one.classes) for one in loaded] == [
        digests(service, version)["weights"] for version in versions
    ]
    assert sum(len(block) for one in data for block in shards.read(other, one.id)) == 32
    with other.db.read() as session:
        assert under_way.is_open(session)
    assert reconcile.finish(other)
    assert _check(other).ledger == "ok"


@both_stacks
def test_what_was_erased_after_a_backup_does_not_come_back_with_it(
    service, tenant, caller, tmp_path, elsewhere
):
    model, data, before = taught(service, tenant, caller)
    backup.write(service, tmp_path / "backup", quiet)
    request = approved(service, tenant, rows_of(data[0], 2, 5))
    run_all(service)
    clean = [digests(service, version) for version in ready(service, model)]
    other = elsewhere(objects=service.settings.objects_dir)

    report = restore(other, tmp_path / "backup", [], quiet)

    assert (report["erasures_applied"], report["shards_followed"]) == (1, 2)
    with other.db.read() as session:
        again = session.get_one(ForgetRequest, request.id)
        assert 28 <= (again.due_at - again.submitted_at).days <= 31  # a month, as for one without a date
    for version in before:
        with pytest.raises(ArtifactCorrupt):
            snapshots.load(other, version.id)
    assert _check(other).status == "unavailable"
    assert not reconcile.finish(other)
    run_all(other)
    assert [digests(other, version) for version in ready(other, model)] == clean
    assert reconcile.finish(other)
    with other.db.read() as session:
        assert session.get_one(ForgetRequest, request.id).state == "completed"
        positions = [int(at) for block in shards.read(other, data[0].id) for at in block.positions]
        assert session.scalars(select(Restore)).one().finished_at is not None
    assert {2, 5}.isdisjoint(positions)
    assert len(positions) == 14


def test_files_that_only_a_newer_backup_has_are_taken_from_it(service, tenant, caller, tmp_path, elsewhere):
    model, data, _ = taught(service, tenant, caller)
    backup.write(service, tmp_path / "old", quiet)
    approved(service, tenant, rows_of(data[0], 2, 5))
    run_all(service)
    clean = [digests(service, version) for version in ready(service, model)]
    backup.write(service, tmp_path / "new", quiet)

    shutil.copytree(service.settings.keys_dir, tmp_path / "copied-keys")
    with_newer, without = elsewhere(), elsewhere(keys=tmp_path / "copied-keys")
    followed = restore(with_newer, tmp_path / "old", [tmp_path / "new"], quiet)
    lost = restore(without, tmp_path / "old", [], quiet)

    assert (followed["shards_followed"], followed["rows_lost"]) == (2, 0)
    assert (lost["shards_followed"], lost["rows_lost"]) == (0, 8)
    for other in (with_newer, without):
        run_all(other)
        assert reconcile.finish(other)
    assert [digests(with_newer, version) for version in ready(with_newer, model)] == clean
    assert [digests(without, version) for version in ready(without, model)] != clean


def test_old_keys_that_are_offered_again_open_nothing_for_long(service, tenant, caller, tmp_path, elsewhere):
    model, data, _ = taught(service, tenant, caller)
    backup.write(service, tmp_path / "backup", quiet)
    shutil.copytree(service.settings.keys_dir, tmp_path / "old-keys")
    approved(service, tenant, rows_of(data[0], 2, 5))
    run_all(service)
    clean = [digests(service, version) for version in ready(service, model)]
    mixed = tmp_path / "mixed-keys"
    shutil.copytree(service.settings.keys_dir, mixed)
    shutil.copytree(tmp_path / "old-keys", mixed, dirs_exist_ok=True)
    other = elsewhere(keys=mixed)

    restore(other, tmp_path / "backup", [], quiet)
    with other.db.read() as session:
        old = {shard.key_id for shard in session.scalars(select(Shard))}
    run_all(other)

    assert [digests(other, version) for version in ready(other, model)] == clean
    positions = [int(at) for block in shards.read(other, data[0].id) for at in block.positions]
    assert {2, 5}.isdisjoint(positions)
    with other.db.read() as session:
        now = {shard.key_id for shard in session.scalars(select(Shard))}
    for key_id in old - now:
        with pytest.raises(ArtifactCorrupt):
            other.vault.key(key_id)


def test_rows_that_are_nowhere_are_counted_and_taken_out(service, tenant, caller, tmp_path, elsewhere):
    model, data, _ = taught(service, tenant, caller)
    backup.write(service, tmp_path / "backup", quiet)
    with service.db.read() as session:
        query = select(Shard).filter_by(dataset_id=data[0].id, feature_map_id=None).order_by(Shard.first)
        lost = session.scalars(query).first()
    service.vault.keys.delete(lost.key_id)
    other = elsewhere()

    report = restore(other, tmp_path / "backup", [], quiet)

    assert (report["rows_lost"], report["datasets_deleted_again"]) == (8, 0)
    run_all(other)
    assert [statistics_of(other, one).rows for one in ready(other, model)] == [8, 24]
    with other.db.read() as session:
        assert session.get_one(Dataset, data[0].id).train_rows == 8
    assert reconcile.finish(other)


@both_stacks
def test_an_interrupted_restore_is_not_served_and_is_taken_up_again(
    service, tenant, caller, tmp_path, elsewhere, monkeypatch
):
    model, data, _ = taught(service, tenant, caller)
    backup.write(service, tmp_path / "backup", quiet)
    approved(service, tenant, rows_of(data[0], 2, 5))
    run_all(service)
    clean = [digests(service, version) for version in ready(service, model)]
    other = elsewhere(objects=service.settings.objects_dir)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(restoring, "reconcile", killed)
        with pytest.raises(KeyboardInterrupt):
            restore(other, tmp_path / "backup", [], quiet)
    assert _check(other).ledger == "reconciling"

    report = restore(other, tmp_path / "backup", [], quiet)
    run_all(other)

    assert report["erasures_applied"] == 1
    assert [digests(other, version) for version in ready(other, model)] == clean
    assert reconcile.finish(other)


def test_an_erasure_of_rows_that_the_backup_does_not_know_is_applied_to_what_it_knows(
    service, tenant, caller, tmp_path, elsewhere
):
    _, data, _ = taught(service, tenant, caller)
    backup.write(service, tmp_path / "backup", quiet)
    labels, x = many()
    later = sent(service, tenant, labels, x, range(8, 24))
    approved(service, tenant, [*rows_of(later, 1), *rows_of(data[0], 2)])
    run_all(service)
    other = elsewhere(objects=service.settings.objects_dir)

    restore(other, tmp_path / "backup", [], quiet)
    run_all(other)

    assert 2 not in [int(at) for block in shards.read(other, data[0].id) for at in block.positions]
    assert reconcile.finish(other)


def test_rows_that_were_left_for_other_persons_are_left_by_a_restore(
    service, tenant, caller, tmp_path, elsewhere
):
    _, data, _ = taught(service, tenant, caller)
    with service.db.begin() as session:
        for position, subjects in ((0, ("ada", "ben")), (1, ("ada",))):
            session.add(Sample(dataset_id=data[0].id, position=position, tenant_id=tenant.id))
            session.flush()
            for one in subjects:
                session.add(
                    SampleSubject(
                        dataset_id=data[0].id, position=position, subject_digest=one, tenant_id=tenant.id
                    )
                )
    backup.write(service, tmp_path / "backup", quiet)
    approved(service, tenant, ["subject:ada"], scope="subject", shared_rows="report")
    run_all(service)
    other = elsewhere(objects=service.settings.objects_dir)

    restore(other, tmp_path / "backup", [], quiet)
    run_all(other)

    positions = [int(at) for block in shards.read(other, data[0].id) for at in block.positions]
    assert (0 in positions, 1 in positions) == (True, False)


def test_a_dataset_that_was_deleted_after_the_backup_is_deleted_again(
    service, tenant, caller, tmp_path, elsewhere
):
    model, data, versions = taught(service, tenant, caller)
    backup.write(service, tmp_path / "backup", quiet)
    purges.purge_dataset(service, data[1].id, lambda _: None)
    other = elsewhere()

    report = restore(other, tmp_path / "backup", [], quiet)

    assert report["datasets_deleted_again"] == 1
    assert [version.id for version in ready(other, model)] == [version.id for version in versions]
    assert reconcile.finish(other)


def test_without_keys_or_ledger_nothing_is_restored(service, tenant, caller, tmp_path, elsewhere):
    _, data, _ = taught(service, tenant, caller)
    approved(service, tenant, rows_of(data[0], 2))
    backup.write(service, tmp_path / "backup", quiet)
    without_ledger = tmp_path / "without-ledger"
    shutil.copytree(service.settings.keys_dir, without_ledger, ignore=shutil.ignore_patterns("ledger"))

    for keys, word in ((tmp_path / "no-keys", "keys"), (without_ledger, "ledger")):
        with pytest.raises(MissingData, match=word):
            restore(elsewhere(keys=keys), tmp_path / "backup", [], quiet)


@both_stacks
def test_a_backup_is_written_and_restored_only_where_nothing_lies(service, tenant, caller, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InUse):
        backup.write(service, tmp_path / "full", quiet)
    backup.write(service, tmp_path / "backup", quiet)

    with pytest.raises(InUse, match="not empty"):
        restore(service, tmp_path / "backup", [], quiet)
