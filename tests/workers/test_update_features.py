"""Feature maps: networks that a version trains or brings along, and features stored once."""

import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sqlalchemy import func, select

from app import ids
from app.db import clock
from app.methods import networks
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.grid import quantise
from app.services.datasets import features, shards
from app.services.models import models, snapshots
from app.tables import FeatureMap, Shard, Upload
from app.vault import new_key
from tests.services.learning import WIDTH, a_dataset, a_model, learn, rows, run_next, submit
from workers import update

MLP = {"name": "mlp", "params": {"hidden": [8]}}
QUICK = {"epochs": 2, "batch_size": 8, "lr": 0.01}


def test_stores_the_features_of_the_network_it_trained(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=9, bee=9), split=[0] * 16 + [1] * 2)
    version = learn(service, caller, a_model(service, caller, network=MLP), [data], "supervised", QUICK)

    after = snapshots.load(service, version.id).snapshot
    network = networks.load(after.network, after.input, after.weights)
    stored = list(shards.read(service, data.id, version.feature_map_id))
    sent = list(shards.read(service, data.id))
    with torch.inference_mode():
        for kept, raw in zip(stored, sent, strict=True):
            expected, _ = quantise(network(torch.from_numpy(raw.x)).numpy(), "normalised")
            assert np.abs(kept.x.astype(int) - expected).max() <= 1
    assert version.metrics["rows"] == 2


def test_publishes_centroids_that_are_sums_of_stored_features(service, tenant, caller):
    labels = rows(ant=9, bee=9)
    data = a_dataset(service, tenant.id, labels, split=[0] * 16 + [1] * 2)
    version = learn(service, caller, a_model(service, caller, network=MLP), [data], "supervised", QUICK)
    after = snapshots.load(service, version.id).snapshot
    sums = {"ant": np.zeros(8, np.int64), "bee": np.zeros(8, np.int64)}
    for block in shards.read(service, data.id, version.feature_map_id, split=shards.TRAIN):
        for row, label in zip(block.x, block.labels, strict=True):
            sums[block.names[label]] += row
    for name, total in sums.items():
        np.testing.assert_array_equal(after.centroids[name].sum, total)
        assert after.centroids[name].count == 8


def test_reads_stored_features_in_later_updates_and_keeps_the_map(service, tenant, caller, monkeypatch):
    model = a_model(service, caller, network=MLP)
    first = learn(
        service, caller, model, [a_dataset(service, tenant.id, rows(ant=9, bee=9))], "supervised", QUICK
    )
    made = []
    original = features.make

    def make(service, dataset_id, *rest, **given):
        made.append(dataset_id)
        return original(service, dataset_id, *rest, **given)

    monkeypatch.setattr(features, "make", make)
    new = a_dataset(service, tenant.id, rows(cat=6))
    second = learn(service, caller, model, [new], "fetril", {"solver": "closed_form"})
    assert made == [new.id]
    assert second.feature_map_id == first.feature_map_id
    one, two = (snapshots.load(service, row.id).snapshot for row in (first, second))
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, rtol=0, atol=0)


def test_shares_features_of_one_dataset_among_identity_models(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=9, bee=9))
    versions = [learn(service, caller, a_model(service, caller), [data]) for _ in range(2)]
    assert versions[0].feature_map_id == versions[1].feature_map_id
    assert count(service, Shard, Shard.feature_map_id.is_not(None)) == 3


def test_keeps_apart_maps_of_different_grids(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=9, bee=9))
    plain = learn(service, caller, a_model(service, caller), [data])
    spec = {"kind": "vector", "shape": [WIDTH], "grid": {"exponent": -8}}
    other = learn(service, caller, a_model(service, caller, input=spec), [data])
    assert plain.feature_map_id != other.feature_map_id


def test_learns_in_the_features_of_uploaded_weights(service, tenant, caller):
    spec = NetworkSpec(**MLP)
    network = networks.seeded_build(spec, InputSpec(kind="vector", shape=(WIDTH,)), seed=4)
    upload = an_upload(service, tenant.id, network.state_dict())
    model = a_model(service, caller, network={**MLP, "weights": ids.encode("upl", upload.id)})
    data = a_dataset(service, tenant.id, rows(ant=6, bee=6))
    version = learn(service, caller, model, [data])
    block = next(iter(shards.read(service, data.id)))
    with torch.inference_mode():
        expected, _ = quantise(network.eval()(torch.from_numpy(block.x)).numpy(), "normalised")
    stored = next(iter(shards.read(service, data.id, version.feature_map_id)))
    assert np.abs(stored.x.astype(int) - expected).max() <= 1


def test_looks_once_at_a_dataset_without_rows(service, tenant, caller, monkeypatch):
    data = a_dataset(service, tenant.id, [])
    feature_map = its_map(service, tenant, a_model(service, caller))
    network = networks.load(NetworkSpec(name="identity"), InputSpec(kind="vector", shape=(WIDTH,)), {})
    real, made = features.make, []

    def make(*given):
        made.append(real(*given))
        assert len(made) < 3, "it would go on for ever"
        return made[-1]

    monkeypatch.setattr(features, "make", make)
    features.ensure(service, data.id, feature_map, network, "normalised", torch.device("cpu"), lambda _: None)

    assert made == [[]]


def test_stores_features_once_when_two_jobs_race(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=9, bee=9))
    created = a_model(service, caller)
    feature_map = its_map(service, tenant, created)
    network = networks.load(NetworkSpec(name="identity"), InputSpec(kind="vector", shape=(WIDTH,)), {})
    both = threading.Barrier(2, timeout=20)
    failures = []

    def ensure():
        ready: list[int] = []

        def tell(_):
            if not ready:
                ready.append(both.wait())

        try:
            features.ensure(service, data.id, feature_map, network, "normalised", torch.device("cpu"), tell)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ensure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(service, Shard, Shard.feature_map_id == feature_map) == 3
    assert sum(len(block) for block in shards.read(service, data.id, feature_map)) == 18


def test_puts_a_dataset_through_again_that_was_rewritten_meanwhile(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
    created = a_model(service, caller)
    feature_map = its_map(service, tenant, created)
    network = networks.load(NetworkSpec(name="identity"), InputSpec(kind="vector", shape=(WIDTH,)), {})
    seen = []

    def rewrite(rows):
        seen.append(rows)
        if len(seen) == 1:
            move_to_another_key(service, data.id)

    features.ensure(service, data.id, feature_map, network, "normalised", torch.device("cpu"), rewrite)
    assert seen == [8, 8]
    assert sum(len(block) for block in shards.read(service, data.id, feature_map)) == 8


def test_leaves_no_features_behind_when_publication_is_refused(service, tenant, caller, monkeypatch):
    data = a_dataset(service, tenant.id, rows(ant=9, bee=9))
    model = a_model(service, caller, network=MLP)
    submit(service, caller, model, [data], "supervised", QUICK)
    original, drafts = update._save, []

    def save_then_delete_the_model(*args):
        drafts.append(original(*args))
        with service.db.begin() as session:
            row = models.get(session, tenant.id, model.id)
            row.deleted_at = clock(session)
        return drafts[0]

    monkeypatch.setattr(update, "_save", save_then_delete_the_model)
    done = run_next(service)
    assert done.state == "failed"
    assert count(service, FeatureMap, FeatureMap.source.like("version:%")) == 0
    for shard in drafts[0].shards:
        with pytest.raises(FileNotFoundError):
            service.vault.keys.open(shard.key_id)


def test_tells_which_field_does_not_fit_the_method(service, tenant, caller):
    x = np.full((4, WIDTH), 3e38)  # finite as sent, not after the network
    data = a_dataset(service, tenant.id, rows(ant=2, bee=2), x=x)
    submit(service, caller, a_model(service, caller, network=MLP), [data], "supervised", QUICK)
    done = run_next(service)
    assert done.error["cause"] == "invalid-input"
    assert done.error["errors"][0]["pointer"] == "/method/params/lr"


def its_map(service, tenant, created):
    with service.db.begin() as session:
        found = features.map_of(session, models.get(session, tenant.id, created.id), None)
    assert found is not None
    return found


def an_upload(service, tenant_id, tensors):
    file_id, key_id = ids.new(), ids.new()
    key = service.vault.seal(file_id, [save(tensors)], new_key())
    service.vault.write_key(key_id, key)
    with service.db.begin() as session:
        row = Upload(
            tenant_id=tenant_id,
            created_at=clock(session),
            name="weights",
            bytes=1,
            tensors={},
            file_id=file_id,
            key_id=key_id,
        )
        session.add(row)
    return row


def count(service, table, *where):
    with service.db.read() as session:
        return session.scalar(select(func.count()).select_from(table).where(*where))


def move_to_another_key(service, dataset_id):
    """What an erasure does to a shard: the same rows under another file and key."""
    with service.db.begin() as session:
        shard = session.scalars(select(Shard).filter_by(dataset_id=dataset_id, feature_map_id=None)).first()
        raw = service.vault.open(shard.file_id, service.vault.key(shard.key_id))
        shard.file_id, shard.key_id = ids.new(), ids.new()
        service.vault.write_key(shard.key_id, service.vault.seal(shard.file_id, [raw], new_key()))
