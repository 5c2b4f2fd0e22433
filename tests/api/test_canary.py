"""Two persons go through everything that the service does, and are forgotten one after the other: afterwards
nothing that it left anywhere holds them, or tells their rows from others."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load
from sqlalchemy import select

from app.methods.parts.grid import ExponentGrid, quantise
from app.service import Service
from app.services import jobs
from app.services.callers.access import digest, tenant_key
from app.services.datasets import shards
from app.services.jobs import Signal
from app.tables import Certificate, ForgetItem, Job, Shard, Version
from app.vault import KeyObject
from tests import searching
from tests.api.conftest import both_stacks
from tests.api.sending import npz, send
from workers import runner

WIDTH = 12
GRID = ExponentGrid(exponent=-10)
ANNA, BERT = "Änna Canary <anna.canary@example.org>", "bert-canary/4711"
LONG = r"\d\.\d{9,}(?:e-\d+)?"
CLEAN = ("lda", "naive_bayes", "teen", "ncm")  # heads on top, each from rows of nobody


@dataclass
class World:
    """What was sent, and of whom."""

    client: Any
    service: Service
    rows: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: {ANNA: [], BERT: []})
    bodies: list[bytes] = field(default_factory=list)  # that held rows of the persons
    models: list[str] = field(default_factory=list)
    count: int = 0

    def row(self, person: str | None = None) -> NDArray[np.float32]:
        """A row like no other."""
        self.count += 1
        x = np.random.default_rng(self.count).normal(size=WIDTH).astype(np.float32)
        if person is not None:
            self.rows[person].append(x)
        return x

    def work(self) -> None:
        """Do every job that waits."""
        while claimed := jobs.claim(self.service, ["cpu", "gpu", "io"], "test"):
            runner.run(self.service, claimed, lambda: Signal.CONTINUE)
            with self.service.db.read() as session:
                done = session.get_one(Job, claimed.id)
                assert done.state == "succeeded", (done.kind, done.error)

    def post(self, path: str, body: Any, key: str | None = None) -> Any:
        answer = self.client.post(path, json=body, headers={"Idempotency-Key": key} if key else {})
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()

    def upload(self, **arrays: Any) -> str:
        body = npz(**arrays)
        self.bodies += [body] if "subject" in arrays else []
        answer = send(self.client, body, "npz")
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def model(self, **changes: Any) -> str:
        body = {
            "name": f"model {len(self.models)}",
            "task": "classification",
            "input": {"kind": "vector", "shape": [WIDTH], "grid": GRID.model_dump()},
            "keep_versions": 20,
            **changes,
        }
        self.models.append(self.post("/v1/models", body)["id"])
        return self.models[-1]

    def learn(self, model: str, dataset: str, method: str, **params: Any) -> None:
        self.count += 1
        body = {
            "datasets": [dataset],
            "method": {"name": method, "params": params},
            "on_conflict": "extend",
        }
        self.post(f"/v1/models/{model}/updates", body, f"update {self.count}")
        self.work()


def sample_of(person: str) -> str:
    return f"sample of {person}"


def of_persons(*persons: str | None) -> dict[str, Any]:
    """Who each row is about; rows of nobody in particular have a subject too."""
    names = [person or f"somebody {at}" for at, person in enumerate(persons)]
    return {"subject": names, "sample_id": [f"{sample_of(name)} {at}" for at, name in enumerate(names)]}


def build(client: Any, service: Service) -> World:
    """Rows of both persons in every kind of dataset, heads of every kind, and everything that reads them."""
    world = World(client, service)
    mixed = mixed_rows(world)
    chain = world.model()
    world.learn(chain, mixed, "analytic")
    world.learn(chain, sent_as_json(world), "fetril")
    for at, method in enumerate(CLEAN):
        label = np.repeat([f"clean {at}", f"other {at}"], 3)
        clean = world.upload(x=np.stack([world.row() for _ in label]), label=label)
        world.learn(chain, clean, method)
    network = world.model(network={"name": "mlp", "params": {"hidden": [16]}})
    world.learn(network, mixed, "supervised", epochs=2, batch_size=8)
    regression = world.model(
        task="regression",
        input={
            "kind": "table",
            "shape": [WIDTH],
            "grid": GRID.model_dump(),
            "target": {"exponent": -8},
        },
    )
    who = (None, None, ANNA, BERT, None, None)
    x = np.stack([world.row(person) for person in who])
    measured = world.upload(x=x, target=np.arange(6.0), **texts(of_persons(*who)))
    world.learn(regression, measured, "ridge_regression")
    images(world)
    look(world, chain)
    return world


def texts(columns: dict[str, list[str]]) -> dict[str, NDArray[Any]]:
    return {name: np.array(values) for name, values in columns.items()}


def mixed_rows(world: World) -> str:
    """Rows of two classes to learn, and some to measure with."""
    who = (None, ANNA, None, None, BERT, None, ANNA, None, None, BERT)
    labels = ["ant", "ant", "ant", "bee", "bee", "bee", "ant", "ant", "bee", "bee"]
    split = ["train"] * 6 + ["eval"] * 4
    x = np.stack([world.row(person) for person in who])
    return world.upload(x=x, label=np.array(labels), split=np.array(split), **texts(of_persons(*who)))


def sent_as_json(world: World) -> str:
    """Rows of classes of which Anna's has no other row; the call is repeated under its key."""
    who = (None, None, ANNA, None, BERT, None)
    body = {
        "x": [world.row(person).tolist() for person in who],
        "label": ["cat", "cat", "zebu", "dog", "dog", "dog"],
        **of_persons(*who),
    }
    world.bodies.append(json.dumps(body).encode())
    first = world.post("/v1/datasets", body, "rows as JSON")
    assert world.post("/v1/datasets", body, "rows as JSON")["id"] == first["id"]
    return str(first["id"])


def images(world: World) -> None:
    """Rows of bytes, which no model reads."""
    pixels = np.random.default_rng(0).integers(1, 255, size=(4, 8, 8), dtype=np.uint8)
    world.rows[ANNA].append(pixels[1])
    world.rows[BERT].append(pixels[2])
    world.upload(x=pixels, label=np.array(list("abab")), **texts(of_persons(None, ANNA, BERT, None)))


def look(world: World, model: str) -> None:
    """Predict for the persons, take a version out."""
    inputs = [x.tolist() for person in (ANNA, BERT) for x in world.rows[person] if x.dtype != np.uint8]
    world.bodies.append(json.dumps({"inputs": inputs}).encode())
    world.post(f"/v1/models/{model}/predict", {"inputs": inputs, "version": 1})
    taken = world.client.get(f"/v1/models/{model}/versions/2/artifact", params={"recipient": "partner"})
    assert taken.status_code == 200, taken.text


def needles(world: World, person: str) -> dict[str, bytes]:
    """Everything that says the person's names or rows."""
    found = searching.of_text(f"{person} id", person)
    found |= searching.of_text(f"{person} sample", sample_of(person))
    for at, x in enumerate(world.rows[person]):
        grid = None if x.dtype == np.uint8 else quantise(x[None], GRID)[0][0]
        found |= searching.of_row(f"{person} row {at}", x, grid)
    return found


def features_of(service: Service, person_rows: list[NDArray[Any]]) -> dict[str, bytes]:
    """The rows as the stored grid shards have them, on every map."""
    found: dict[str, bytes] = {}
    with service.db.read() as session:
        pairs = {(row.dataset_id, row.feature_map_id) for row in session.scalars(select(Shard))}
    for dataset_id, map_id in pairs:
        if map_id is None:
            continue
        as_sent = next(iter(shards.read(service, dataset_id)))
        on_map = next(iter(shards.read(service, dataset_id, map_id)))
        for x, stepped in zip(as_sent.x, on_map.x, strict=True):
            if any(x.shape == row.shape and (x == row).all() for row in person_rows):
                name = f"{map_id.hex} {stepped[:3].tolist()}"
                found |= searching.of_bytes(name, stepped[: searching.VALUES].astype("<i2").tobytes())
    return found


@dataclass(frozen=True)
class Stored:
    """What a copy of the service had at one moment, opened with the keys of that moment."""

    files: dict[Any, bytes]
    values: dict[Any, bytes]
    keys: dict[Any, KeyObject]
    tensors: dict[bytes, str]  # bytes of each -> what it is
    measured: frozenset[str]  # numbers said of versions in use that no other version is likely to share

    @classmethod
    def take(cls, service: Service) -> Stored:
        files, values = searching.copies(service), searching.centroids(service)
        keys = searching.key_objects(service)
        tensors = {}
        for place, raw in searching.opened(files, keys):
            for name, tensor in _tensors(raw):
                tensors[tensor.tobytes()] = f"{place} {name}"
        for place, raw in searching.opened_values(values, keys):
            tensors[raw] = place
        tensors = {raw: name for raw, name in tensors.items() if len(raw) >= 64}
        return cls(files, values, keys, tensors, measured(service))

    @property
    def digests(self) -> set[str]:
        return {value for key in self.keys.values() for value in key.digests.values()}


def _tensors(raw: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    try:
        yield from load(raw).items()
    except SafetensorError:
        return


def measured(service: Service) -> frozenset[str]:
    """The long numbers in metrics and reports of versions in use: each is made of all rows together."""
    with service.db.read() as session:
        rows = session.scalars(select(Version).filter_by(state="ready")).all()
        text = json.dumps([[row.metrics, row.report] for row in rows])
    return frozenset(re.findall(LONG, text))


def long_numbers(service: Service) -> list[str]:
    """Numbers in certificates and items of requests that have as many digits as one made of rows."""
    with service.db.read() as session:
        texts = [*session.scalars(select(Certificate.body))]
        texts += [json.dumps(detail) for detail in session.scalars(select(ForgetItem.detail))]
    return [number for text in texts for number in re.findall(LONG, text)]


def tells(world: World, before: Stored, after: Stored) -> dict[str, bytes]:
    """What would tell a forgotten row from another: every digest and tensor that was made with it, digests
    blinded with any nonce that exists, fingerprints of what was sent under the key that exists."""
    gone = before.digests - after.digests
    found = {f"tensor {name}": raw for raw, name in before.tensors.items() if raw not in after.tensors}
    found |= {f"number {at}": at.encode() for at in before.measured - after.measured}
    for at in gone:
        found[f"digest {at}"], found[f"digest {at} raw"] = at.encode(), bytes.fromhex(at)
        for id, key in after.keys.items():
            if key.nonce is not None:
                blinded = hashlib.sha256(key.nonce + bytes.fromhex(at)).hexdigest()
                found[f"digest {at} blinded by {id}"] = blinded.encode()
    return found | fingerprints(world)


def fingerprints(world: World) -> dict[str, bytes]:
    """What the tenant's key, which stays, makes of bodies that held the rows."""
    with world.service.db.read() as session:
        tenant_id = session.scalars(select(Version.tenant_id).limit(1)).one()
    found = {}
    for at, body in enumerate(world.bodies):
        sha = hashlib.sha256(body).hexdigest()
        found[f"body {at}"] = sha.encode()
        found[f"body {at} upload"] = digest(world.service, tenant_id, f"upload {sha}").encode()
        for text in (body, _canonical(body), _canonical(body) + b"\n"):
            made = hmac.digest(tenant_key(world.service, tenant_id), text, "sha256").hex()
            found[f"body {at} of {len(text)} bytes"] = made.encode()
    return found


def _canonical(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    except ValueError:
        return body


def forget(world: World, person: str) -> None:
    """Preview, ask, work, and look at what came of it."""
    body = {"scope": "subject", "targets": [person]}
    world.post("/v1/forget-requests/preview", body)
    asked = world.post("/v1/forget-requests", body, f"forget {len(person)}")
    world.work()
    done = world.client.get(f"/v1/forget-requests/{asked['id']}").json()
    assert done["state"] == "completed", done
    proof = world.client.get(f"/v1/forget-requests/{asked['id']}/certificate")
    assert proof.status_code == 200, proof.text


@pytest.fixture
def logs() -> Iterator[list[str]]:
    """Every line that is logged, with its fields."""
    lines: list[str] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{self.format(record)} {record.__dict__!r}")

    handler = Keeps(level=logging.INFO)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process puts temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2"])
def test_the_search_finds_a_row_however_it_is_written(dtype, tmp_path):
    x = np.random.default_rng(1).normal(size=WIDTH).astype(np.float32)
    written = x.astype(dtype)
    stepped = quantise(x[None], GRID)[0][0]
    np.savez(tmp_path / "rows.npz", x=np.stack([np.zeros_like(written), written]))
    numbers = [0.5, *x.tolist()]
    texts = {
        "json": json.dumps({"x": [numbers]}),
        "compact json": json.dumps(numbers, separators=(",", ":")),
        "repr": repr(numbers),
        "base64": json.dumps({"x": b64encode(b"?" + written.tobytes()).decode()}),
        "hex": written.tobytes().hex(),
        "grid": repr(stepped.tolist()),
        "grid hex": stepped.tobytes().hex(),
        "grid base64": b64encode(b"??" + stepped.tobytes()).decode(),
    }
    places = [(name, text.encode()) for name, text in texts.items()]
    places.append(("npz", (tmp_path / "rows.npz").read_bytes()))
    places.append(("sums", stepped.astype("<i8").tobytes()))
    found = searching.hits(searching.of_row("row", x, stepped), places)
    assert found.keys() == {name for name, _ in places}


@pytest.mark.parametrize("person", [ANNA, BERT])
def test_the_search_finds_a_name_however_it_is_written(person):
    places = [
        ("text", f"for {person}, with".encode()),
        ("json", json.dumps({"subject": [person]}).encode()),
        ("plain json", json.dumps({"subject": [person]}, ensure_ascii=False).encode()),
        ("base64", b64encode(f"a{person}".encode())),
        ("hex", person.encode().hex().encode()),
    ]
    found = searching.hits(searching.of_text("person", person), places)
    assert found.keys() == {name for name, _ in places}


@pytest.mark.slow
@both_stacks
def test_nothing_that_is_left_anywhere_holds_or_tells_whom_it_forgot(
    client, service, stack, request, logs, temporary
):
    servers = request.getfixturevalue("servers") if stack == "production" else None

    def search(wanted: dict[str, bytes], servers: Any = servers) -> dict[str, set[str]]:
        return searching.hits(wanted, searching.everywhere(service, temporary, logs, servers))

    world = build(client, service)
    for person in (ANNA, BERT):
        said = needles(world, person) | features_of(service, world.rows[person])
        before = Stored.take(service)
        control(service, person, said, search(said, None), before)

        forget(world, person)
        assert long_numbers(service) == []
        after = Stored.take(service)
        telling = tells(world, before, after)
        assert {"tensor", "digest", "body", "number"} == {name.partition(" ")[0] for name in telling}
        assert without_residual(search(said | telling)) == {}
        keys = {id: key for id, key in after.keys.items() if id not in before.keys}
        keys |= after.keys
        old = [*searching.opened(before.files, keys), *searching.opened_values(before.values, keys)]
        assert searching.hits(said | telling, old) == {}


def without_residual(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """What was found, but for measurements in dead tuples and the log of PostgreSQL: each certificate names
    these as a residual, with its last day."""
    left = {
        place: {one for one in names if not (one.startswith("number") and place.startswith(("pages", "wal")))}
        for place, names in found.items()
    }
    return {place: names for place, names in left.items() if names}


def control(
    service: Service, person: str, said: dict[str, bytes], found: dict[str, set[str]], stored: Stored
) -> None:
    """The same search finds the person in each place where rows are meant to be, and in no other."""
    named = {name for names in found.values() for name in names}
    assert all(place.startswith(("opened", "value")) for place in found), found.keys()
    assert not any("id" in name.split()[-2:] for name in named)
    with service.db.read() as session:
        rows = {row.file_id: row for row in session.scalars(select(Shard))}
    kinds = {
        "as sent" if rows[file].feature_map_id is None else "on a map"
        for place in found
        if place.startswith("opened") and (file := ids_of(place)) in rows
    }
    assert kinds == {"as sent", "on a map"}
    assert {name for name in said if name in named and "u1" in name}
    if person == ANNA:  # the only row of its class is its sum
        assert any(place.startswith("value") for place in found)
    tensors = {name.rpartition(" ")[2] for name in stored.tensors.values()}
    assert {"head.weight", "x"} <= tensors


def ids_of(place: str) -> Any:
    return UUID(hex=place.partition(" ")[2])
