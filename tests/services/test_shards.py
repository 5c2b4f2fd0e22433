"""Shards: rows in are rows out, lazily, also while an erasure rewrites what a reader is about to open."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load
from sqlalchemy import select

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt, Purged
from app.services.datasets import datasets, shard_files, shards
from app.tables import Dataset, FeatureMap, Shard
from tests.services.sent import send

ROWS = 25
X = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3)
LABELS = np.array([["b", "a", "c"][i % 3] for i in range(ROWS)])
SPLIT = np.array(["eval" if i % 5 == 0 else "train" for i in range(ROWS)])


@pytest.fixture
def stack():
    return "embedded"


@pytest.fixture
def dataset(service, caller, monkeypatch):
    """25 rows in shards of ten."""
    monkeypatch.setattr("app.intake.rows.BLOCK_ROWS", 10)
    return send(service, caller, x=X, label=LABELS, split=SPLIT)


def rewrite(service, shard, keep):
    """What an erasure does: new file and key, the row names them, the old key is destroyed."""
    block = next(b for b in shards.read(service, shard.dataset_id) if b.shard_id == shard.id).pick(keep)
    fresh = shards.write(
        service,
        tenant_id=shard.tenant_id,
        dataset_id=shard.dataset_id,
        positions=block.positions,
        x=block.x,
        labels=block.labels,
        names=block.names,
        split=block.split,
        targets=block.targets,
    )
    with service.db.begin() as session:
        row = session.get_one(Shard, shard.id)
        old = (row.key_id, row.file_id)
        row.file_id, row.key_id = fresh.file_id, fresh.key_id
    service.vault.destroy(*old)


def shards_of(service, dataset_id, feature_map_id=None):
    with service.db.read() as session:
        query = select(Shard).filter_by(dataset_id=dataset_id, feature_map_id=feature_map_id)
        return session.scalars(query.order_by(Shard.first)).all()


def test_reads_one_shard_after_another_in_the_order_of_positions(service, dataset):
    blocks = list(shards.read(service, dataset.id))

    assert [len(block) for block in blocks] == [10, 10, 5]
    assert np.array_equal(np.concatenate([block.x for block in blocks]), X)
    assert np.concatenate([block.positions for block in blocks]).tolist() == list(range(ROWS))


def test_names_labels_in_byte_order_the_same_in_every_block(service, dataset):
    blocks = list(shards.read(service, dataset.id))

    assert {block.names for block in blocks} == {("a", "b", "c")}
    assert [block.names[i] for block in blocks for i in block.labels] == LABELS.tolist()


def test_keeps_one_split_and_leaves_positions_out(service, dataset):
    blocks = list(shards.read(service, dataset.id, split=shards.TRAIN, leave_out=[1, 24]))

    wanted = [i for i in range(ROWS) if i % 5 and i not in (1, 24)]
    assert np.concatenate([block.positions for block in blocks]).tolist() == wanted
    assert np.array_equal(np.concatenate([block.x for block in blocks]), X[wanted])


def test_opens_a_shard_only_when_it_is_asked_for(service, dataset, monkeypatch):
    opened = []
    real = service.vault.open

    def seen(self, id, key):
        opened.append(id)
        return real(id, key)

    monkeypatch.setattr(type(service.vault), "open", seen)
    blocks = shards.read(service, dataset.id)
    next(blocks)

    assert len(opened) == 1


def test_each_shard_has_a_key_of_its_own(service, dataset):
    found = shards_of(service, dataset.id)

    assert len({shard.key_id for shard in found}) == 3
    stored = b"".join(path.read_bytes() for path in service.settings.objects_dir.rglob("*") if path.is_file())
    assert len(stored) > X.nbytes
    assert X[:2].tobytes() not in stored


def test_reads_a_shard_that_was_rewritten_after_its_row_was_read(service, dataset):
    blocks = shards.read(service, dataset.id)
    next(blocks)
    second = shards_of(service, dataset.id)[1]

    rewrite(service, second, np.arange(10) != 4)

    assert next(blocks).positions.tolist() == [10, 11, 12, 13, 15, 16, 17, 18, 19]


def test_a_shard_whose_key_is_gone_is_corrupt(service, dataset):
    service.vault.destroy(shards_of(service, dataset.id)[0].key_id)

    with pytest.raises(ArtifactCorrupt):
        list(shards.read(service, dataset.id))


def test_a_deleted_dataset_is_purged(service, caller, dataset):
    blocks = shards.read(service, dataset.id)
    next(blocks)
    datasets.remove(service, caller, dataset.id)

    with pytest.raises(Purged):
        next(shards.read(service, dataset.id))


@pytest.fixture
def feature_map(service, caller):
    with service.db.begin() as session:
        row = FeatureMap(
            id=ids.new(), tenant_id=caller.tenant_id, source="identity", width=3, created_at=clock(session)
        )
        session.add(row)
    return row.id


def put_through(service, dataset, feature_map, keep=lambda block: np.ones(len(block), dtype=bool)):
    parts = (
        (block.positions[keep(block)], (block.x[keep(block)] * 2).astype(np.int16), 7)
        for block in shards.read(service, dataset.id)
    )
    made = shards.write_grid(
        service,
        tenant_id=dataset.tenant_id,
        dataset_id=dataset.id,
        feature_map_id=feature_map,
        parts=parts,
    )
    with service.db.begin() as session:
        session.add_all(made)


def test_features_come_with_the_labels_and_splits_of_their_rows(service, dataset, feature_map):
    assert not shards.has_map(service, dataset.id, feature_map)
    put_through(service, dataset, feature_map)

    blocks = list(shards.read(service, dataset.id, feature_map, split=shards.EVAL))

    assert shards.has_map(service, dataset.id, feature_map)
    wanted = np.arange(0, ROWS, 5)
    assert np.array_equal(np.concatenate([block.x for block in blocks]), 2 * X[wanted])
    assert blocks[0].x.dtype == np.int16
    assert blocks[0].clipped == 7
    assert [block.names[i] for block in blocks for i in block.labels] == LABELS[wanted].tolist()


def test_features_of_rows_that_are_gone_are_not_read(service, dataset, feature_map):
    put_through(service, dataset, feature_map)
    rewrite(service, shards_of(service, dataset.id)[1], np.arange(10) > 2)

    blocks = list(shards.read(service, dataset.id, feature_map))

    assert np.concatenate([block.positions for block in blocks]).tolist() == [*range(10), *range(13, ROWS)]


def test_features_made_after_the_first_row_of_a_shard_went_are_found(service, dataset, feature_map):
    rewrite(service, shards_of(service, dataset.id)[1], np.arange(10) > 2)
    put_through(service, dataset, feature_map)

    blocks = list(shards.read(service, dataset.id, feature_map))

    assert np.concatenate([block.positions for block in blocks]).tolist() == [*range(10), *range(13, ROWS)]


def test_missing_features_are_an_error_and_never_fewer_rows(service, dataset, feature_map):
    put_through(service, dataset, feature_map, keep=lambda block: block.positions >= 10)

    with pytest.raises(ArtifactCorrupt):
        list(shards.read(service, dataset.id, feature_map))


def test_a_grid_that_fails_halfway_leaves_no_file(service, dataset, feature_map):
    def parts():
        yield np.arange(10), np.zeros((10, 3), np.int16), 0
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError):
        shards.write_grid(
            service,
            tenant_id=dataset.tenant_id,
            dataset_id=dataset.id,
            feature_map_id=feature_map,
            parts=parts(),
        )

    files = [path for path in service.settings.objects_dir.rglob("*") if path.is_file()]
    assert len(files) == 3


def test_label_index_puts_labels_in_the_order_of_a_model():
    assert shards.label_index(["a", "b", "c"], ["c", "x", "a"]).tolist() == [2, -1, 0]


def test_targets_are_kept_as_float64(service, caller):
    target = np.array([1 / 3, -1e300])
    dataset = send(service, caller, x=X[:2], target=target)

    (block,) = shards.read(service, dataset.id)

    assert block.targets is not None
    assert block.targets.dtype == np.float64
    assert block.targets.tolist() == target.tolist()
    assert block.labels.tolist() == [-1, -1]


@given(
    x=arrays(np.float32, (3, 2), elements=st.floats(width=32)),
    y=arrays(np.int64, 4),
    z=arrays(np.uint8, (2, 0)),
)
def test_the_library_reads_what_is_written_as_it_was(x, y, z):
    raw = b"".join(shard_files.dump({"x": x, "y": y, "z": z}, {"é": "à"}))

    for found in (load(raw), shard_files.parse(raw)[0]):
        assert {name: a.tobytes() for name, a in found.items()} == {
            "x": x.tobytes(),
            "y": y.tobytes(),
            "z": z.tobytes(),
        }
    assert shard_files.parse(raw)[1] == {"é": "à"}


def test_an_arriving_dataset_is_not_there(service, caller, dataset):
    with service.db.begin() as session:
        row = session.get_one(Dataset, dataset.id)
        row.arriving, row.deleted_at = True, row.created_at

    with pytest.raises(Purged):
        next(shards.read(service, dataset.id))


def test_only_the_shards_near_some_positions_are_opened(service, dataset, monkeypatch):
    opened = []
    whole = service.vault.open

    def noted(id, key):
        opened.append(id)
        return whole(id, key)

    monkeypatch.setattr(service.vault, "open", noted)
    blocks = list(shards.read(service, dataset.id, near={12, 24}))
    assert [block.positions.tolist() for block in blocks] == [list(range(10, 20)), list(range(20, 25))]
    assert len(opened) == 2
    assert list(shards.read(service, dataset.id, near={99})) == []


def test_features_that_no_row_names_yet_are_read_with_the_rows_as_sent(service, dataset):
    parts = [(np.arange(at, at + 10), np.full((10, 2), at, np.int16), 0) for at in (0, 10)]
    made = shards.write_grid(
        service, tenant_id=dataset.tenant_id, dataset_id=dataset.id, feature_map_id=None, parts=parts
    )
    blocks = list(shards.read(service, dataset.id, made=made, leave_out=range(20, 25)))
    assert [block.x[0].tolist() for block in blocks] == [[0, 0], [10, 10]]
    assert [blocks[0].names[i] for i in blocks[0].labels] == LABELS[:10].tolist()
    with pytest.raises(ArtifactCorrupt):
        list(shards.read(service, dataset.id, made=made, leave_out=range(20, 24)))  # 24 was not put through
