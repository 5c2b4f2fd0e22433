"""Stored rows after an erasure: what is left, and that nothing opens what was there."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import select

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt
from app.services import certificates
from app.services.datasets import duplicates, shard_files, shards
from app.services.erasure import forgotten, rewrites
from app.tables import Certificate, FeatureMap, ForgetRequest, RowIndex, Sample, SampleSubject, Shard
from app.vault import KeyObject, new_key
from tests.services.erasing import a_request
from tests.services.learning import a_dataset
from tests.services.sent import send

LABELS = ["ant"] * 9 + ["bee"] * 10 + ["cat"]  # shards of 8, 8 and 4 rows


def quiet(_):
    """A purge that nobody stops."""


def purge(service, tenant_id):
    return forgotten.purge(service, tenant_id, quiet)


def stored(service, dataset, map_id=None):
    """(position, label, features) of every row that is there."""
    return [
        (int(at), block.names[label] if label >= 0 else None, x.tolist())
        for block in shards.read(service, dataset.id, map_id)
        for at, label, x in zip(block.positions, block.labels, block.x, strict=True)
    ]


def named(service, dataset):
    """Key and file of every shard."""
    with service.db.read() as session:
        query = select(Shard.key_id, Shard.file_id).filter_by(dataset_id=dataset.id)
        return {tuple(row) for row in session.execute(query)}


def again(service, row):
    with service.db.read() as session:
        return session.get_one(type(row), row.id)


def files_under(service, name):
    folder = getattr(service.settings, name)
    return {path.name for path in folder.rglob("*") if path.is_file()}


def a_map(service, tenant_id, dataset):
    """A feature map and the dataset's features on it, whose values say the position."""
    with service.db.begin() as session:
        row = FeatureMap(
            id=ids.new(), created_at=clock(session), tenant_id=tenant_id, source=ids.new().hex, width=2
        )
        session.add(row)
    made = shards.write_grid(
        service,
        tenant_id=tenant_id,
        dataset_id=dataset.id,
        feature_map_id=row.id,
        parts=[
            (block.positions, np.stack([block.positions, block.positions], 1).astype(np.int16), 5)
            for block in shards.read(service, dataset.id)
        ],
    )
    with service.db.begin() as session:
        session.add_all(made)
    return row


def test_rows_are_gone_as_sent_and_on_every_map_and_the_others_are_as_before(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    grid = a_map(service, tenant.id, data)
    before, before_on_grid = stored(service, data), stored(service, data, grid.id)
    a_request(service, tenant.id, {data: [2, 9]})

    purge(service, tenant.id)
    assert stored(service, data) == [row for row in before if row[0] not in (2, 9)]
    assert stored(service, data, grid.id) == [row for row in before_on_grid if row[0] not in (2, 9)]


def test_old_keys_and_files_are_destroyed_and_only_those_of_shards_that_held_a_row(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    before = named(service, data)
    a_request(service, tenant.id, {data: [9]})

    purge(service, tenant.id)
    after = named(service, data)
    assert len(before - after) == len(after - before) == 1
    for key_id, file_id in before - after:
        assert key_id.hex not in files_under(service, "keys_dir")
        assert file_id.hex not in files_under(service, "objects_dir")
    ((key_id, _),) = after - before
    ((_, replaced),) = before - after
    assert service.vault.key(key_id).replaces == replaced


def test_a_shard_left_empty_is_removed_and_the_rest_still_reads(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    grid = a_map(service, tenant.id, data)
    a_request(service, tenant.id, {data: range(8)})

    purge(service, tenant.id)
    assert len(named(service, data)) == 4
    assert [row[0] for row in stored(service, data, grid.id)] == list(range(8, 20))
    assert {key.hex for key, _ in named(service, data)} <= files_under(service, "keys_dir")
    assert len(files_under(service, "objects_dir")) == 4


def test_a_dataset_says_what_it_has_left(service, tenant):
    split = [0] * 18 + [1] * 2
    report = {
        "rows": 20,
        "accepted": 20,
        "rejected": 0,
        "quarantined": 0,
        "reasons": [],
        "warnings": [{"reason": "duplicate", "count": 1}, {"reason": "empty-class", "count": 1}],
    }
    data = a_dataset(service, tenant.id, LABELS, split=split, report=report)
    a_request(service, tenant.id, {data: [0, 1, 18, 19]})

    purge(service, tenant.id)
    left = again(service, data)
    assert (left.rows, left.train_rows, left.eval_rows) == (20, 16, 0)
    assert left.classes == {"ant": {"train": 7, "eval": 0}, "bee": {"train": 9, "eval": 0}}
    assert left.report["accepted"] == 16
    assert [one["reason"] for one in left.report["warnings"]] == ["empty-class"]


def test_a_label_that_no_row_has_any_more_is_not_in_the_shard_either(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    a_request(service, tenant.id, {data: [19]})
    purge(service, tenant.id)
    with service.db.read() as session:
        rows = session.scalars(select(Shard).filter_by(dataset_id=data.id)).all()
    assert not any(b"cat" in service.vault.open(row.file_id, service.vault.key(row.key_id)) for row in rows)


def test_values_at_the_ends_of_the_grid_are_counted_of_the_rows_that_are_left(service, tenant):
    data = a_dataset(service, tenant.id, ["ant"] * 3)
    with service.db.begin() as session:
        row = FeatureMap(id=ids.new(), created_at=clock(session), tenant_id=tenant.id, source="test", width=2)
        session.add(row)
    x = np.array([[32767, 1], [-32767, 32767], [3, 4]], np.int16)
    made = shards.write_grid(
        service,
        tenant_id=tenant.id,
        dataset_id=data.id,
        feature_map_id=row.id,
        parts=[(np.arange(3), x, 3)],
    )
    with service.db.begin() as session:
        session.add_all(made)
    a_request(service, tenant.id, {data: [1]})
    purge(service, tenant.id)
    assert again(service, made[0]).clipped == 1


def test_indexes_of_rows_lose_them_too(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    grid = a_map(service, tenant.id, data)
    prints = np.arange(640, dtype=np.uint8).reshape(20, 32)
    arrays: dict[str, NDArray[Any]] = {"positions": np.arange(20), "fingerprint": prints}
    file_id, key_id = ids.new(), ids.new()
    key = service.vault.seal(file_id, shard_files.dump(arrays, {}), new_key())
    service.vault.write_key(key_id, key)
    with service.db.begin() as session:
        index = RowIndex(
            id=ids.new(),
            created_at=clock(session),
            tenant_id=tenant.id,
            dataset_id=data.id,
            feature_map_id=grid.id,
            rows=20,
            file_id=file_id,
            key_id=key_id,
        )
        session.add(index)
    a_request(service, tenant.id, {data: [4, 5]})
    purge(service, tenant.id)
    left = again(service, index)
    found, _ = shard_files.parse(service.vault.open(left.file_id, service.vault.key(left.key_id)))
    assert left.rows == 18
    np.testing.assert_array_equal(found["fingerprint"], np.delete(prints, [4, 5], axis=0))
    with pytest.raises(ArtifactCorrupt):
        service.vault.key(key_id)


def test_many_requests_write_a_shard_once_and_each_counts_its_own(service, tenant, monkeypatch):
    data = a_dataset(service, tenant.id, LABELS)
    requests = [a_request(service, tenant.id, {data: [at, at + 8]}) for at in range(6)]
    written = []
    name = rewrites._name

    def noted(service, made, see):
        written.extend(made)
        return name(service, made, see)

    monkeypatch.setattr(rewrites, "_name", noted)
    assert set(purge(service, tenant.id)) == {row.id for row in requests}
    assert len(written) == 2
    for row in requests:
        done = again(service, row)
        assert done.state == "completed"
        assert done.evidence["purge"] == {"rows": 2, "versions": 0, "datasets": 1}


def test_a_row_that_two_requests_name_goes_once_and_counts_for_both(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    requests = [a_request(service, tenant.id, {data: at}) for at in ([1, 2], [2, 3])]
    purge(service, tenant.id)
    assert again(service, data).train_rows == 17
    assert [again(service, row).evidence["purge"]["rows"] for row in requests] == [2, 2]


def test_a_request_that_names_models_leaves_stored_rows(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    before = named(service, data)
    request = a_request(service, tenant.id, {data: [1]}, models=[])
    purge(service, tenant.id)
    assert named(service, data) == before
    assert again(service, request).state == "completed"


def test_every_request_gets_its_certificate(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    first = a_request(service, tenant.id, {data: [1]})
    joined = a_request(service, tenant.id, {}, duplicate_of=first.id, sequence=first.sequence)
    purge(service, tenant.id)
    with service.db.read() as session:
        assert set(session.scalars(select(Certificate.request_id))) == {first.id, joined.id}


def test_a_request_in_another_state_or_of_another_tenant_waits(service, tenant):
    data = a_dataset(service, tenant.id, LABELS)
    before = named(service, data)
    waiting = a_request(service, tenant.id, {data: [1]}, state="unlearning")
    assert purge(service, tenant.id) == []
    a_request(service, tenant.id, {data: [2]})
    assert purge(service, ids.new()) == []
    assert named(service, data) == before
    assert again(service, waiting).state == "unlearning"


class Killed(BaseException):
    """A process that ends where it stands."""


@pytest.mark.parametrize("stack", ["embedded"], indirect=True)
@pytest.mark.parametrize("step", ["seal", "write_key", "destroy"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_purge_that_is_killed_anywhere_is_finished_by_the_next(service, tenant, monkeypatch, step, call):
    data = a_dataset(service, tenant.id, LABELS)
    grid = a_map(service, tenant.id, data)
    before = named(service, data)
    request = a_request(service, tenant.id, {data: [*range(8), 12]})
    calls, real = [], getattr(type(service.vault), step)

    def dies(vault, *arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise Killed
        return real(vault, *arguments)

    monkeypatch.setattr(rewrites, "WRITERS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(type(service.vault), step, dies)
        with pytest.raises(Killed):
            purge(service, tenant.id)
    purge(service, tenant.id)

    assert [row[0] for row in stored(service, data, grid.id)] == [*range(8, 12), *range(13, 20)]
    keys = files_under(service, "keys_dir")
    gone = before - named(service, data)
    assert len(gone) == 4
    assert not any(key.hex in keys for key, _ in gone)
    assert again(service, data).train_rows == 11
    assert again(service, request).evidence["purge"]["rows"] == 9


def test_features_that_a_job_stores_while_the_purge_runs_lose_the_rows_too(service, tenant, monkeypatch):
    data = a_dataset(service, tenant.id, LABELS)
    a_request(service, tenant.id, {data: [3]})
    grids: list[FeatureMap] = []
    name = rewrites._name

    def late(service, made, see):
        if not grids:
            grids.append(a_map(service, tenant.id, data))
        return name(service, made, see)

    monkeypatch.setattr(rewrites, "_name", late)
    purge(service, tenant.id)
    assert 3 not in [row[0] for row in stored(service, data, grids[0].id)]
    assert len(stored(service, data, grids[0].id)) == 19


def test_who_the_rows_were_about_is_gone_and_the_bytes_of_the_upload_are_unknown(service, tenant, caller):
    arrays: dict[str, Any] = {
        "x": np.eye(4, dtype=np.float32),
        "label": np.array(["ant", "ant", "bee", "bee"]),
        "subject": np.array(["anna", "bert", "anna", "carl"]),
        "sample_id": np.array(["s1", "s2", "s3", "s4"]),
    }
    data = send(service, caller, **arrays)
    marks = service.vault.key(data.id).digests
    assert duplicates.find(service, tenant.id, marks) == data.id
    a_request(service, tenant.id, {data: [0, 2]})

    purge(service, tenant.id)
    with service.db.read() as session:
        for table in (Sample, SampleSubject):
            assert set(session.scalars(select(table.position).filter_by(dataset_id=data.id))) == {1, 3}
    with pytest.raises(ArtifactCorrupt):
        service.vault.key(data.id)
    assert duplicates.find(service, tenant.id, marks) is None
    assert not duplicates._index(service).by_mark


def test_another_process_forgets_the_bytes_of_the_upload_when_it_next_looks(service, tenant, caller):
    data = send(service, caller, x=np.eye(2, dtype=np.float32), label=np.array(["ant", "bee"]))
    marks = dict(service.vault.key(data.id).digests)
    index = duplicates._index(service)
    held = dict(index.by_mark)
    a_request(service, tenant.id, {data: [0]})
    purge(service, tenant.id)
    index.by_mark.update(held)  # as in a process that did not purge

    assert duplicates.find(service, tenant.id, {**marks, "sha256": "another"}) is None
    assert not index.by_mark


def test_rows_sent_again_to_be_forgotten_go_with_the_last_request_that_needs_them(service, tenant):
    data, again_sent = (a_dataset(service, tenant.id, LABELS, for_forget=at) for at in (False, True))
    first, second = (
        a_request(service, tenant.id, {data: [at]}, rows_id=again_sent.id, state=state)
        for at, state in ((1, "purging"), (2, "unlearning"))
    )
    purge(service, tenant.id)
    assert len(named(service, again_sent)) == 3
    with service.db.begin() as session:
        session.get_one(ForgetRequest, second.id).state = "purging"
    purge(service, tenant.id)
    assert named(service, again_sent) == set()
    assert again(service, again_sent).deleted_at is not None
    assert again(service, first).state == again(service, second).state == "completed"


def test_a_key_object_says_what_it_replaces():
    key = KeyObject(key=bytes(32), replaces=ids.new(), replaces_key=ids.new())
    assert KeyObject.parse(key.dump()) == key
    assert key.replaces_key is not None
    older = key.dump().replace(b', "replaces_key": "' + key.replaces_key.hex.encode() + b'"', b"")
    assert KeyObject.parse(older).replaces_key is None


def test_the_journal_of_sqlite_and_the_messages_that_were_read_are_empty_when_it_signs(
    service, tenant, monkeypatch
):
    data = a_dataset(service, tenant.id, LABELS)
    a_request(service, tenant.id, {data: [1]})
    folder = service.settings.data_dir / "broker" / "processed"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "message").write_text("old")
    journal = service.settings.data_dir / "palimpsest.db-wal"
    sign, sizes = certificates.issue_all, []

    def noted(service, session, requests):
        sizes.append(journal.stat().st_size if journal.exists() else 0)
        return sign(service, session, requests)

    monkeypatch.setattr(certificates, "issue_all", noted)
    purge(service, tenant.id)
    assert sizes == [0]
    assert (folder / "message").exists() == bool(service.settings.broker.url)
