"""A version between memory and its file."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt, NotFound, Purged
from app.methods import networks
from app.methods.base import Centroid, Head, Snapshot
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.digest import array_digest, class_map_digest, label_keys
from app.methods.parts.grid import ExponentGrid
from app.services.models import snapshots
from app.tables import Version
from tests.services.versions import add_model, add_version

INPUT = InputSpec(kind="vector", shape=(4,))
CLASSES = ("Z", "a", "ä", "的")  # in the order of their UTF-8 bytes


def linear(classes=CLASSES, width=4, normalise=True, **changes) -> Snapshot:
    random = np.random.default_rng(3)
    snapshot = Snapshot(
        input=INPUT,
        grid=ExponentGrid(exponent=-6),
        network=NetworkSpec(name="identity"),
        classes=classes,
        head=Head(
            torch.from_numpy(random.normal(size=(len(classes), width)).astype(np.float32)),
            torch.from_numpy(random.normal(size=len(classes)).astype(np.float32)),
            normalise,
        ),
        centroids={key: Centroid(random.integers(-9, 9, width), 3) for key in classes},
    )
    return replace(snapshot, **changes)


def trained(**changes) -> Snapshot:
    spec = NetworkSpec(name="mlp", params={"hidden": [5, 3]})
    network = networks.seeded_build(spec, INPUT, 1)
    return linear(width=3, network=spec, weights=network.state_dict(), **changes)


def publish(service, snapshot, **changes) -> Version:
    with service.db.begin() as session:
        model = add_model(session, snapshot)
    return add_version(service, model, snapshot, **changes)


def head_of(snapshot: Snapshot) -> Head:
    assert snapshot.head is not None
    return snapshot.head


def path_of(service, version):
    return service.vault.files._path(version.file_id)


def test_brings_back_what_was_saved(service):
    before = linear()

    after = snapshots.load(service, publish(service, before).id).snapshot

    assert after.classes == CLASSES
    assert torch.equal(head_of(after).weight, head_of(before).weight)
    assert torch.equal(head_of(after).bias, head_of(before).bias)
    assert head_of(after).normalise is True
    assert (after.input, after.grid, after.network) == (before.input, before.grid, before.network)
    for key in CLASSES:
        assert np.array_equal(after.centroids[key].sum, before.centroids[key].sum)
        assert after.centroids[key].count == 3


def test_leaves_the_centroids_where_they_are_if_told(service):
    version = publish(service, linear())

    assert snapshots.load(service, version.id, centroids=False).snapshot.centroids == {}


def test_names_the_classes_by_their_ids(service):
    version = publish(service, linear())

    loaded = snapshots.load(service, version.id)

    assert len(set(loaded.class_ids)) == 4
    assert loaded.class_map_digest == class_map_digest([id.bytes for id in loaded.class_ids], CLASSES)


def test_keeps_the_network_with_the_version_that_trained_it(service):
    before = trained()

    after = snapshots.load(service, publish(service, before, trained_network=True).id).snapshot

    assert after.weights.keys() == before.weights.keys()
    assert all(torch.equal(after.weights[name], before.weights[name]) for name in before.weights)


def test_finds_the_network_of_a_later_version_with_its_ancestor(service):
    first = trained(classes=CLASSES[:2])
    with service.db.begin() as session:
        model = add_model(session, first)
    parent = add_version(service, model, first, trained_network=True)
    later = add_version(service, model, trained(), feature_map_id=parent.feature_map_id)

    after = snapshots.load(service, later.id).snapshot

    assert after.classes == CLASSES
    assert all(torch.equal(after.weights[name], first.weights[name]) for name in first.weights)


def test_stores_nothing_that_can_be_read_without_the_key(service):
    before = linear()
    version = publish(service, before)

    sealed = path_of(service, version).read_bytes()

    assert head_of(before).weight.numpy().tobytes() not in sealed
    assert b"head.weight" not in sealed


def test_gives_each_version_a_nonce_and_the_digest_of_its_weights(service):
    before = linear(normalise=False)
    one, two = publish(service, before), publish(service, replace(before, input=INPUT))

    keys = [service.vault.key(version.key_id) for version in (one, two)]

    expected = array_digest(
        {
            "classes": label_keys(CLASSES),
            "head.weight": head_of(before).weight.numpy(),
            "head.bias": head_of(before).bias.numpy(),
            "head.normalise": np.zeros(1, np.uint8),
        }
    )
    assert [key.digests["weights"] for key in keys] == [expected, expected]
    assert len({key.nonce for key in keys}) == 2
    assert all(len(key.nonce) == 32 for key in keys)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [flip, lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.unlink()],
    ids=["a bit flipped", "truncated", "missing"],
)
def test_refuses_a_damaged_file(service, damage):
    version = publish(service, linear())
    damage(path_of(service, version))

    with pytest.raises(ArtifactCorrupt):
        snapshots.load(service, version.id)


def test_refuses_a_version_whose_key_is_gone(service):
    version = publish(service, linear())
    service.vault.keys.delete(version.key_id)

    with pytest.raises(ArtifactCorrupt):
        snapshots.load(service, version.id)


def test_refuses_a_head_that_is_not_the_one_of_its_class_map(service):
    version = publish(service, linear())
    key = service.vault.key(version.key_id)
    other = hashlib.sha256(b"other").hexdigest()
    service.vault.write_key(version.key_id, replace(key, digests={**key.digests, "weights": other}))

    with pytest.raises(ArtifactCorrupt):
        snapshots.load(service, version.id)


def test_follows_a_row_that_an_erasure_rewrote_meanwhile(service, monkeypatch):
    """The file is replaced and the old one destroyed between the read of the row and the open."""
    before = linear()
    version = publish(service, before)
    vault_open = service.vault.open

    def erased_meanwhile(id, key):
        monkeypatch.setattr(service.vault, "open", vault_open)
        saved = snapshots.save(service, before, trained_network=False, key=key)
        new_key = ids.new()
        service.vault.write_key(new_key, saved.key)
        with service.db.begin() as session:
            row = session.get_one(Version, version.id)
            row.file_id, row.key_id = saved.file_id, new_key
        service.vault.files.delete(id)
        return service.vault.open(id, key)

    monkeypatch.setattr(service.vault, "open", erased_meanwhile)

    after = snapshots.load(service, version.id, centroids=False).snapshot

    assert torch.equal(head_of(after).weight, head_of(before).weight)


def test_says_that_a_version_was_purged_while_it_was_opened(service, monkeypatch):
    version = publish(service, linear())
    vault_open = service.vault.open

    def purged_meanwhile(id, key):
        monkeypatch.setattr(service.vault, "open", vault_open)
        with service.db.begin() as session:
            row = session.get_one(Version, version.id)
            row.state, row.purged_at = "purged", clock(session)
        service.vault.destroy(version.key_id, version.file_id)
        return service.vault.open(id, key)

    monkeypatch.setattr(service.vault, "open", purged_meanwhile)

    with pytest.raises(Purged):
        snapshots.load(service, version.id)


def test_knows_no_version_that_was_never_published(service):
    with pytest.raises(NotFound):
        snapshots.load(service, ids.new())


def test_shares_a_centroid_that_another_version_made(service):
    first = linear()
    with service.db.begin() as session:
        model = add_model(session, first)
    parent = add_version(service, model, first)
    child = add_version(service, model, linear(), centroids_of=parent.id)

    after = snapshots.load(service, child.id).snapshot

    assert child.key_id != parent.key_id
    assert np.array_equal(after.centroids["a"].sum, first.centroids["a"].sum)
