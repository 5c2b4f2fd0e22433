"""What a process remembers is valid for one change counter, and its own commits are seen at once."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy.exc import OperationalError

from app.db import change_counter, connect, touch
from app.services import memory as module
from app.services.memory import Memory


@pytest.fixture
def memory(service):
    memory = Memory(service.db, every=0.02)
    memory.start()
    memory.refresh()
    yield memory
    memory.stop()


class Counted:
    """A loader that says how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> int:
        self.times += 1
        return self.times


def change(db):
    with db.begin() as session:
        touch(session)


def test_loads_once_while_nothing_changes(memory):
    load = Counted()

    assert [memory.get("a", load) for _ in range(3)] == [1, 1, 1]
    assert memory.peek("a") == 1
    assert memory.peek("b") is None


def test_a_commit_of_this_process_is_seen_at_once(memory, service):
    load = Counted()
    memory.get("a", load)

    change(service.db)

    assert memory.peek("a") is None
    assert memory.get("a", load) == 2


def test_a_commit_that_touched_nothing_keeps_the_values(memory, service):
    memory.get("a", Counted())

    with service.db.begin() as session:
        change_counter(session)

    assert memory.peek("a") == 1


def test_a_rollback_keeps_the_values_and_the_counter(memory, service):
    memory.get("a", Counted())

    def fail():
        with service.db.begin() as session:
            touch(session)
            raise RuntimeError("no")

    with service.db.read() as session:
        before = change_counter(session)
    with pytest.raises(RuntimeError, match="no"):
        fail()
    with service.db.read() as session:
        assert change_counter(session) == before
    assert memory.peek("a") == 1


def test_many_touches_of_one_transaction_count_once(service):
    with service.db.begin() as session:
        before = change_counter(session)
        touch(session)
        touch(session)
    with service.db.read() as session:
        assert change_counter(session) == before + 1


def test_a_commit_of_another_process_is_seen_soon(memory, settings):
    memory.get("a", Counted())
    other = connect(settings.database_url)

    change(other)
    other.close()

    until = time.monotonic() + 10
    while memory.peek("a") is not None:
        assert time.monotonic() < until


def test_a_counter_that_a_reader_saw_drops_what_is_older(memory):
    memory.refresh()
    memory.get("a", Counted())

    memory.see(10**6)
    assert memory.peek("a") is None

    memory.get("a", Counted())
    memory.see(10**6)
    assert memory.peek("a") == 1


def test_what_was_loaded_across_a_change_is_not_kept(memory, service):
    def slow():
        change(service.db)
        return "old"

    assert memory.get("a", slow) == "old"
    assert memory.peek("a") is None


def test_many_threads_see_no_value_older_than_their_own_commit(memory, service):
    wrong = []

    def work():
        for _ in range(10):
            with service.db.begin() as session:
                touch(session)
                session.flush()
                mine = change_counter(session) + 1
            if memory.get("counter", lambda: read(service)) < mine:
                wrong.append(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def read(service):
    with service.db.read() as session:
        return change_counter(session)


def test_no_error_of_one_look_ends_the_thread(service, monkeypatch):
    memory = Memory(service.db, every=0.02)
    real, failures = memory.refresh, iter([True])

    def flaky():
        if next(failures, False):
            raise RuntimeError("a driver's own")
        real()

    monkeypatch.setattr(memory, "refresh", flaky)
    memory.get("a", Counted())
    memory.start()

    until = time.monotonic() + 10
    while memory.peek("a") is not None:  # the first counter that it reads drops what was loaded before
        assert time.monotonic() < until
    memory.stop()


def test_without_a_database_for_long_it_forgets(service, monkeypatch):
    monkeypatch.setattr(module, "BLIND_SECONDS", 0.1)
    memory = Memory(service.db, every=0.02)

    def away():
        raise OperationalError("SELECT", {}, Exception("away"))

    monkeypatch.setattr(memory, "refresh", away)
    memory.get("a", Counted())
    memory.start()

    until = time.monotonic() + 10
    while memory.peek("a") is not None:
        assert time.monotonic() < until
    memory.stop()
