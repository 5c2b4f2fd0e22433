"""Threads that compute in turns."""

from __future__ import annotations

import threading

import pytest

from app.services.predictions.turns import Turns


@pytest.fixture
def turns():
    opened = Turns(1, prepare=lambda: None)
    yield opened
    opened.close()


def count(steps, log=None, gate=None):
    """A task of some steps that writes its name after each."""
    for step in range(steps):
        if gate is not None:
            gate.wait(10)
        if log is not None:
            log.append(steps)
        if step < steps - 1:
            yield
    return steps


def test_lets_a_short_task_pass_a_long_one(turns):
    gate, log = threading.Event(), list[int]()
    long = turns.submit(count(50, log, gate))
    short = turns.submit(count(2, log, gate))
    gate.set()

    assert (long.result(10), short.result(10)) == (50, 2)
    assert max(i for i, name in enumerate(log) if name == 2) <= 4


def test_hands_an_error_to_who_waits(turns):
    def broken():
        yield
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        turns.submit(broken()).result(10)
    assert turns.submit(count(1)).result(10) == 1


def test_ends_a_cancelled_task_before_its_next_step(turns):
    gate, log = threading.Event(), list[int]()
    first = turns.submit(count(1, gate=gate))
    second = turns.submit(count(3, log))

    assert second.cancel()
    gate.set()

    assert first.result(10) == 1
    assert turns.submit(count(1)).result(10) == 1
    assert log == []


def test_prepares_every_thread_once():
    names = []
    turns = Turns(3, prepare=lambda: names.append(threading.current_thread().name))
    turns.submit(count(1)).result(10)
    turns.close()

    assert len(names) == len(set(names)) == 3


def test_finishes_what_waits_when_it_closes():
    turns = Turns(1, prepare=lambda: None)
    waiting = [turns.submit(count(5)) for _ in range(3)]

    turns.close()

    assert [future.result(0) for future in waiting] == [5, 5, 5]
