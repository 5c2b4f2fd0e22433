"""Ready versions, kept warm within a number of bytes."""

from __future__ import annotations

import threading
from dataclasses import replace
from uuid import UUID

import pytest
import torch
from torch import nn

from app import ids
from app.methods.base import Head
from app.methods.parts.scoring import Scorer
from app.services.predictions import loaded
from app.services.predictions.loaded import Cache, Ready
from tests.services.test_snapshots import head_of, linear, publish, trained

EMPTY = Ready(
    network=nn.Identity(),
    grid="normalised",
    scorer=Scorer(Head(torch.zeros(1, 1), torch.zeros(1), False), "normalised"),
    classes=("a",),
    class_ids=(ids.new(),),
    class_names=("cls",),
    class_map_digest="",
    rows_per_step=1,
    size=0,
)


@pytest.fixture
def stack():
    return "embedded"


@pytest.fixture
def cache_of():
    """A cache with a limit whose versions all have one size."""
    made = []

    def make(limit, size=40, load=None):
        made.append(Cache(load or (lambda id: replace(EMPTY, size=size)), limit))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def test_lets_the_least_recently_used_go_first(cache_of):
    cache = cache_of(100)
    a, b, c = (ids.new() for _ in range(3))
    cache.get(a).result(10)
    cache.get(b).result(10)
    assert cache.peek(a)

    cache.get(c).result(10)

    assert cache.held() == [a, c]
    assert cache.peek(b) is None
    assert cache.size == 80


def test_counts_bytes_not_versions(cache_of):
    sizes: dict[UUID, int] = {}
    cache = cache_of(100, load=lambda id: replace(EMPTY, size=sizes[id]))
    small = [ids.new() for _ in range(5)]
    large = ids.new()
    sizes |= {**dict.fromkeys(small, 20), large: 90}
    for id in small:
        cache.get(id).result(10)
    assert cache.held() == small

    cache.get(large).result(10)

    assert cache.held() == [large]


def test_hands_out_what_is_larger_than_the_limit_and_does_not_keep_it(cache_of):
    cache = cache_of(100, size=101)

    assert cache.get(ids.new()).result(10).size == 101
    assert cache.held() == []


def test_loads_once_what_many_want(cache_of):
    gate, calls = threading.Event(), []

    def load(id):
        calls.append(id)
        gate.wait(10)
        return EMPTY

    cache, id = cache_of(100, load=load), ids.new()
    waiting = [cache.get(id) for _ in range(20)]
    gate.set()

    assert {future.result(10) for future in waiting} == {EMPTY}
    assert calls == [id]


def test_loads_again_after_a_failure(cache_of):
    answers = [OSError("away"), EMPTY]

    def load(id):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache, id = cache_of(100, load=load), ids.new()
    with pytest.raises(OSError, match="away"):
        cache.get(id).result(10)

    assert cache.get(id).result(10) is EMPTY


def test_forgets_what_was_destroyed(cache_of):
    cache, id = cache_of(100), ids.new()
    cache.get(id).result(10)

    cache.drop([id, ids.new()])

    assert cache.held() == []


def test_knows_the_size_of_a_version(service):
    snapshot = trained()
    version = publish(service, snapshot, trained_network=True)

    ready = loaded.read(service, version.id)

    numbers = sum(t.numel() * t.element_size() for t in snapshot.weights.values())
    assert ready.size >= numbers + 8 * head_of(snapshot).weight.numel()
    assert ready.size < numbers + 8 * head_of(snapshot).weight.numel() + 4096


def test_cuts_a_costly_network_into_smaller_steps(service, monkeypatch):
    monkeypatch.setattr(loaded, "STEP", 1000)
    cheap = loaded.read(service, publish(service, linear(classes=("a", "b"))).id)
    costly = loaded.read(service, publish(service, trained(), trained_network=True).id)

    assert cheap.rows_per_step == 1000 // (2 * 2 * 4 + 4)
    assert costly.rows_per_step == 1000 // (2 * 4 * 3 + 4 + 4 * 5 + 5 * 3)
