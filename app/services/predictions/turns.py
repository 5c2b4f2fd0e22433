"""Threads that compute in turns: a long task gives way to the others after every step."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, TypeVar, cast

T = TypeVar("T")
Steps = Generator[None, None, T]  # yields between steps, returns the result


def at_once(work: Callable[[], T]) -> Steps[T]:
    """Something as a task of one step."""
    return work()
    yield


def finish(steps: Steps[T]) -> T:
    """All steps of a task, here and now."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)


class Turns:
    """A fixed number of threads that take one step of the task that has waited longest.

    So one row waits for one step of a batch of a thousand, never for the batch. `prepare` runs once in each
    thread.
    """

    def __init__(self, threads: int, prepare: Callable[[], None]) -> None:
        self._waiting: deque[tuple[Steps[Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._prepare = prepare
        self._threads = [
            threading.Thread(target=self._work, name=f"predict-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, steps: Steps[T]) -> Future[T]:
        """The result of `steps`, later; cancelling the future ends the task before its next step."""
        future: Future[T] = Future()
        self._put(steps, future)
        return future

    def close(self) -> None:
        """Finish what is waiting and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _put(self, steps: Steps[Any], future: Future[Any]) -> None:
        with self._changed:
            self._waiting.append((steps, future))
            self._changed.notify()

    def _take(self) -> tuple[Steps[Any], Future[Any]] | None:
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _work(self) -> None:
        self._prepare()
        while (task := self._take()) is not None:
            steps, future = task
            if future.cancelled():
                steps.close()
                continue
            try:
                next(steps)
            except StopIteration as end:
                if future.set_running_or_notify_cancel():
                    future.set_result(end.value)
            except BaseException as error:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
            else:
                self._put(steps, future)
            del task, steps, future  # a waiting thread holds on to nobody's rows
