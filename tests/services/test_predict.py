"""Predictions: which version answers, what it may say, and that nothing changes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import select

from app import ids
from app.config import Api
from app.db import clock, touch
from app.errors import ArtifactCorrupt, NotFound, NotReady, Purged, VersionNotReady
from app.methods.base import Head
from app.methods.networks.spec import InputSpec
from app.metrics import ARTIFACT_FAILURES
from app.schemas.predict import PredictRead
from app.services.erasure import ledger
from app.services.memory import Memory
from app.services.predictions import loaded, predict
from app.services.predictions.predict import Ask, Predictor
from app.services.predictions.turns import at_once
from app.tables import (
    Alias,
    Base,
    Dataset,
    ErasedRow,
    ForgetRequest,
    LedgerEntry,
    LedgerTarget,
    ModelClass,
    Version,
    VersionDataset,
)
from tests.services.asked import approve, request
from tests.services.test_snapshots import CLASSES, flip, head_of, linear, path_of, trained
from tests.services.versions import add_model, add_version

ROWS = np.random.default_rng(5).normal(size=(300, 4)).astype(np.float32)


@pytest.fixture
def predictors(service):
    """Make predictors over the service, with the settings of the API as given."""
    made = []

    def make(**api):
        settings = service.settings.model_copy(update={"api": Api(**api)})
        memory = Memory(service.db, 60)
        memory.start()
        predictor = Predictor(replace(service, settings=settings), memory)
        made.append((predictor, memory))
        return predictor

    yield make
    for predictor, memory in made:
        predictor.close()
        memory.stop()


@pytest.fixture
def predictor(predictors):
    return predictors()


@pytest.fixture
def model(service, tenant):
    with service.db.begin() as session:
        return add_model(session, linear(), tenant.id)


def given(ask):
    """A request that is parsed already."""
    return at_once(lambda: ask)


def ask(predictor, caller, model, inputs=ROWS[:1], **fields):
    """The answer, checked against its schema."""
    raw = asyncio.run(predictor.predict(caller, model.id, given(Ask(inputs, **fields)), 0))
    assert PredictRead.model_validate_json(raw)
    return json.loads(raw)


def labels(answer):
    return [row["label"] for row in answer["predictions"]]


def add_alias(service, version, name="production"):
    with service.db.begin() as session:
        session.add(
            Alias(
                created_at=clock(session),
                tenant_id=version.tenant_id,
                model_id=version.model_id,
                name=name,
                version_id=version.id,
            )
        )
        touch(session)


def reference(snapshot, rows):
    """Scores (rows, classes) in float64, by the definition: a grid of 2**-6, a product."""
    x = np.clip(np.rint(rows.astype(np.float64) * 64), -32767, 32767) / 64
    if snapshot.head.normalise:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x @ snapshot.head.weight.numpy().astype(np.float64).T + snapshot.head.bias.numpy()


def test_names_the_best_classes_with_their_scores(service, model, caller, predictor):
    snapshot = linear()
    version = add_version(service, model, snapshot)

    answer = ask(predictor, caller, model, ROWS, version=1, top_k=3)

    expected = reference(snapshot, ROWS)
    best = np.argsort(-expected, axis=1)[:, :3]
    assert [[top["label"] for top in row["top_k"]] for row in answer["predictions"]] == [
        [CLASSES[at] for at in row] for row in best
    ]
    given = [[top["score"] for top in row["top_k"]] for row in answer["predictions"]]
    assert np.allclose(given, np.take_along_axis(expected, best, 1), rtol=0, atol=1e-5)
    with service.db.read() as session:
        rows = session.execute(select(ModelClass.name, ModelClass.id).filter_by(model_id=model.id)).all()
    known = {name: ids.encode("cls", id) for name, id in rows}
    assert all(row["class_id"] == known[row["label"]] for row in answer["predictions"])
    assert (answer["version"], answer["alias"], answer["instead_of"]) == (1, None, None)
    assert answer["model"] == ids.encode("mdl", version.model_id)


def test_answers_by_alias_number_and_latest(service, model, caller, predictor):
    first = add_version(service, model, linear(classes=("one",)))
    add_version(service, model, linear(classes=("two",)))
    add_alias(service, first)

    asked: tuple[dict[str, Any], ...] = ({"alias": "production"}, {"version": 2}, {}, {"alias": "latest"})
    answers = [ask(predictor, caller, model, **fields) for fields in asked]

    assert [a["version"] for a in answers] == [1, 2, 2, 2]
    assert [a["alias"] for a in answers] == ["production", None, "latest", "latest"]
    assert [labels(a) for a in answers] == [["one"], ["two"], ["two"], ["two"]]


def test_follows_an_alias_at_once(service, model, caller, predictor):
    first = add_version(service, model, linear(classes=("one",)))
    second = add_version(service, model, linear(classes=("two",)))
    add_alias(service, first)
    assert labels(ask(predictor, caller, model, alias="production")) == ["one"]

    with service.db.begin() as session:
        session.scalars(select(Alias)).one().version_id = second.id
        touch(session)

    assert labels(ask(predictor, caller, model, alias="production")) == ["two"]


@pytest.mark.parametrize("fields", [{"version": 2}, {"alias": "production"}], ids=["version", "alias"])
def test_knows_nothing_that_is_not_there(service, model, caller, predictor, fields):
    add_version(service, model, linear())

    with pytest.raises(NotFound):
        ask(predictor, caller, model, **fields)


def test_shows_a_model_to_its_tenant_only(service, model, caller, predictor):
    add_version(service, model, linear())

    with pytest.raises(NotFound):
        ask(predictor, replace(caller, tenant_id=ids.new()), model, version=1)


def test_never_names_a_retired_class(service, model, caller, predictor):
    snapshot = linear()
    add_version(service, model, snapshot)
    usual = labels(ask(predictor, caller, model, ROWS))
    gone = usual[0]

    with service.db.begin() as session:
        row = session.scalars(select(ModelClass).filter_by(model_id=model.id, name=gone)).one()
        row.retired_at = clock(session)
        touch(session)
    answer = ask(predictor, caller, model, ROWS, top_k=4)

    expected = reference(snapshot, ROWS)
    expected[:, CLASSES.index(gone)] = -np.inf
    assert labels(answer) == [CLASSES[at] for at in expected.argmax(axis=1)]
    assert {len(row["top_k"]) for row in answer["predictions"]} == {3}


def enter(service, model, kind, *targets, request_id=None):
    """An entry of the ledger, as an approval or its lift will write it."""
    with service.db.begin() as session:
        entry = LedgerEntry(
            tenant_id=model.tenant_id,
            request_id=request_id or ids.new(),
            kind=kind,
            scope="class",
            actor="test",
            created_at=clock(session),
        )
        session.add(entry)
        session.flush()
        for target in targets:
            session.add(LedgerTarget(sequence=entry.sequence, target=target, tenant_id=model.tenant_id))
        touch(session)
    return entry


def test_never_names_a_class_that_the_ledger_erases_until_that_is_lifted(service, model, caller, predictor):
    add_version(service, model, linear())
    [usual] = labels(ask(predictor, caller, model))
    with service.db.read() as session:
        id = session.scalars(select(ModelClass.id).filter_by(model_id=model.id, name=usual)).one()

    entry = enter(service, model, "approve", ledger.class_target(id))
    erased = labels(ask(predictor, caller, model))
    enter(service, model, "lift", request_id=entry.request_id)

    assert erased != [usual]
    assert labels(ask(predictor, caller, model)) == [usual]


def test_falls_back_by_itself_once_the_request_that_taints_a_version_is_due(
    service, model, caller, predictor, monkeypatch
):
    add_version(service, model, linear())
    classes = tuple(sorted((*CLASSES, "late"), key=str.encode))
    later = add_version(service, model, linear(classes=classes))
    row = request(
        service,
        model.tenant_id,
        scope="class",
        targets=[ledger.class_target(class_id(service, model, "late"))],
    )
    add_alias(service, later)
    approve(service, row)
    first = ask(predictor, caller, model, alias="production")
    with service.db.begin() as session:  # time passes: nothing else changes
        session.get_one(ForgetRequest, row.id).due_at = clock(session) - timedelta(seconds=1)
    meanwhile = ask(predictor, caller, model, alias="production")
    monkeypatch.setattr(predict, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 40 * 86_400))

    due = ask(predictor, caller, model, alias="production")

    assert [(one["version"], one["instead_of"]) for one in (first, meanwhile, due)] == [
        (2, None),
        (2, None),
        (1, 2),
    ]


def class_id(service, model, name):
    with service.db.read() as session:
        return session.scalars(select(ModelClass.id).filter_by(model_id=model.id, name=name)).one()


def test_refuses_a_version_whose_classes_are_all_gone(service, model, caller, predictor):
    add_version(service, model, linear(classes=("only",)))
    with service.db.begin() as session:
        session.scalars(select(ModelClass)).one().retired_at = clock(session)
        touch(session)

    with pytest.raises(VersionNotReady):
        ask(predictor, caller, model, version=1)


def test_says_that_a_version_was_purged_and_drops_it(service, model, caller, predictor):
    version = add_version(service, model, linear())
    add_version(service, model, linear())
    ask(predictor, caller, model, version=1)
    assert predictor.cache.held() == [version.id]

    with service.db.begin() as session:
        session.get_one(Version, version.id).state = "purged"
        touch(session)
    ask(predictor, caller, model, version=2)

    assert version.id not in predictor.cache.held()
    with pytest.raises(Purged):
        ask(predictor, caller, model, version=1)


def taint(service, model, version):
    """Erase a row that the version was trained on."""
    with service.db.begin() as session:
        dataset = Dataset(
            created_at=clock(session),
            tenant_id=model.tenant_id,
            name="rows",
            format="npz",
            kind="rows",
            shape=[4],
            dtype="float32",
            rows=1,
            train_rows=1,
            eval_rows=0,
            has_labels=True,
            has_targets=False,
            classes={},
            report={},
        )
        session.add(dataset)
        session.flush()
        session.add(
            VersionDataset(
                version_id=version.id,
                dataset_id=dataset.id,
                role="train",
                inherited=False,
                rows=1,
                left_out=[],
            )
        )
    entry = enter(service, model, "approve")
    with service.db.begin() as session:
        session.add(
            ErasedRow(dataset_id=dataset.id, position=0, sequence=entry.sequence, tenant_id=model.tenant_id)
        )
        touch(session)


def test_serves_a_tainted_version_until_it_is_replaced(service, model, caller, predictor):
    version = add_version(service, model, linear())
    add_alias(service, version)
    taint(service, model, version)

    assert ask(predictor, caller, model, alias="production")["version"] == 1
    assert ask(predictor, caller, model, version=1)["version"] == 1


def test_takes_a_damaged_version_out_of_service(service, model, caller, predictor):
    healthy = add_version(service, model, linear(classes=("healthy",)))
    tainted = add_version(service, model, linear(classes=("tainted",)))
    damaged = add_version(service, model, linear(classes=("damaged",)))
    add_alias(service, damaged)
    taint(service, model, tainted)
    flip(path_of(service, damaged))
    failures = ARTIFACT_FAILURES._value.get()

    answer = ask(predictor, caller, model, alias="production")

    assert (answer["version"], answer["instead_of"], answer["alias"]) == (healthy.number, 3, "production")
    assert labels(answer) == ["healthy"]
    assert ARTIFACT_FAILURES._value.get() == failures + 1
    with pytest.raises(ArtifactCorrupt):
        ask(predictor, caller, model, version=3)
    assert ARTIFACT_FAILURES._value.get() == failures + 1  # it was not opened again


def test_refuses_when_every_version_is_damaged(service, model, caller, predictor):
    for version in (add_version(service, model, linear()), add_version(service, model, linear())):
        path_of(service, version).unlink()

    with pytest.raises(ArtifactCorrupt):
        ask(predictor, caller, model)


def test_keeps_only_as_many_bytes_as_it_may(service, tenant, caller, predictors):
    """Heads of 15 x 4,096 float64, some 0.47 MiB each, in a cache of 1 MiB: two of three stay."""
    wide = replace(
        linear(centroids={}),
        input=InputSpec(kind="vector", shape=(4096,)),
        classes=tuple(f"{i:02}" for i in range(15)),
        head=Head(torch.ones(15, 4096), torch.zeros(15), False),
    )
    predictor = predictors(cache_bytes=1 << 20)
    with service.db.begin() as session:
        model = add_model(session, wide, tenant.id)
    versions = [add_version(service, model, wide) for _ in range(3)]

    for number in (1, 2, 1, 3):
        ask(predictor, caller, model, np.ones((1, 4096), np.float32), version=number)

    assert predictor.cache.held() == [versions[0].id, versions[2].id]


class Stuck:
    """A task that holds the only thread until it is let go."""

    def __init__(self, predictor):
        self.started, self.gate = threading.Event(), threading.Event()
        predictor.turns.submit(self._steps())
        assert self.started.wait(10)

    def _steps(self):
        self.started.set()
        self.gate.wait(30)
        return None
        yield


def test_refuses_what_the_queue_cannot_hold_and_takes_it_later(service, model, caller, predictors):
    predictor = predictors(predict_queue=2, predict_threads=1)
    add_version(service, model, linear())
    ask(predictor, caller, model)
    stuck = Stuck(predictor)

    async def crowd():
        waiting = [
            asyncio.ensure_future(predictor.predict(caller, model.id, given(Ask(ROWS[:1])), 0))
            for _ in range(3)
        ]
        await asyncio.sleep(0)
        with pytest.raises(NotReady) as refused:
            await predictor.predict(caller, model.id, given(Ask(ROWS[:1])), 0)
        stuck.gate.set()
        return refused.value, await asyncio.gather(*waiting)

    refused, answers = asyncio.run(crowd())

    assert refused.headers == {"Retry-After": "1"}
    assert [labels(json.loads(raw)) for raw in answers] == [labels(ask(predictor, caller, model))] * 3


def test_leaves_the_event_loop_free_while_it_computes(service, model, caller, predictor):
    add_version(service, model, linear())
    ask(predictor, caller, model)
    stuck = Stuck(predictor)

    async def meanwhile():
        waiting = asyncio.ensure_future(predictor.predict(caller, model.id, given(Ask(ROWS[:1])), 0))
        turns = 0
        until = time.monotonic() + 10
        while turns < 1000 and time.monotonic() < until:
            await asyncio.sleep(0)
            turns += 1
        done = waiting.done()
        stuck.gate.set()
        await waiting
        return turns, done

    assert asyncio.run(meanwhile()) == (1000, False)


def test_answers_a_row_while_a_batch_waits_for_its_next_turn(service, tenant, caller, predictor, monkeypatch):
    monkeypatch.setattr(loaded, "STEP", 1)
    snapshot = trained()
    with service.db.begin() as session:
        model = add_model(session, snapshot, tenant.id)
    add_version(service, model, snapshot, trained_network=True)
    ask(predictor, caller, model)
    stuck, order = Stuck(predictor), []

    async def asked(rows):
        await predictor.predict(caller, model.id, given(Ask(rows)), 0)
        order.append(len(rows))

    async def both():
        batch = asyncio.ensure_future(asked(ROWS[:100]))
        await asyncio.sleep(0)
        one = asyncio.ensure_future(asked(ROWS[:1]))
        await asyncio.sleep(0)
        stuck.gate.set()
        await asyncio.gather(batch, one)

    asyncio.run(both())

    assert order == [1, 100]


def test_scores_a_row_alone_as_in_a_batch_bit_for_bit(service, model, caller, predictor):
    add_version(service, model, linear())

    batch = ask(predictor, caller, model, ROWS, top_k=4)["predictions"]
    alone = [ask(predictor, caller, model, ROWS[i : i + 1], top_k=4)["predictions"][0] for i in range(40)]

    assert alone == batch[:40]


def test_scores_network_rows_alike_alone_and_in_a_batch(service, tenant, caller, predictor):
    """A network adds floats in an order of its own: on the grid it shows as a step, or not at all."""
    snapshot = trained(normalise=False)
    step = 2.0**-6 * float(head_of(snapshot).weight.abs().sum(dim=1).max())
    with service.db.begin() as session:
        model = add_model(session, snapshot, tenant.id)
    add_version(service, model, snapshot, trained_network=True)

    batch = ask(predictor, caller, model, ROWS, top_k=4)["predictions"]
    again = ask(predictor, caller, model, ROWS, top_k=4)["predictions"]
    alone = [ask(predictor, caller, model, ROWS[i : i + 1], top_k=4)["predictions"][0] for i in range(40)]

    assert again == batch
    for one, other in zip(alone, batch, strict=False):
        scores = {top["label"]: top["score"] for top in other["top_k"]}
        assert all(abs(top["score"] - scores[top["label"]]) <= step for top in one["top_k"])


def state(service):
    """Every row and every stored byte."""
    with service.db.read() as session:
        rows = {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in Base.metadata.sorted_tables
        }
    stored = {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for root in (service.vault.files.root, service.vault.keys.root)
        for path in root.rglob("*")
        if path.is_file()
    }
    return rows, stored


def test_changes_nothing(service, model, caller, predictor):
    version = add_version(service, model, linear())
    add_alias(service, version)
    before = state(service)
    first = ask(predictor, caller, model, ROWS[:2], alias="production")

    async def many():
        call = [
            predictor.predict(caller, model.id, given(Ask(ROWS[:2], alias="production")), 0)
            for _ in range(30)
        ]
        return await asyncio.gather(*call)

    answers = [raw for _ in range(20) for raw in asyncio.run(many())]

    assert {json.dumps(json.loads(raw)) for raw in answers} == {json.dumps(first)}
    assert state(service) == before
