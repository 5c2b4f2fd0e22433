"""The courier: one process sends what is due, and tries again over a day.

Attempts are 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h after one another's failure, with
jitter. A 2xx is success; anything else, a redirect too, is not; 410 ends the attempts. What the receiver
answers is not kept, only its status.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpcore
from sqlalchemy.exc import SQLAlchemyError

from app import ids
from app.db import clock
from app.service import Service
from app.services.callbacks import signing
from app.services.callbacks.addresses import Guarded, Network, Refused, networks
from app.services.callbacks.deadline import Deadline
from app.services.callbacks.letters import Letter, Receiver, due
from app.tables import Delivery

log = logging.getLogger(__name__)

WAITS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)  # seconds after each failure
JITTER = 0.1
SECONDS = 15.0  # of one attempt, from the look at the name to the status
POLL_SECONDS = 1.0
AT_ONCE = 16  # receivers, of all tenants
GONE = 410
HOLDS_ON = (429, 502, 503, 504)  # whose Retry-After counts
LONGEST_WAIT = 86_400.0


@dataclass(frozen=True)
class Answer:
    """What came of an attempt."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None

    @property
    def is_taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Rounds:
    """Who is being told: each receiver by one thread, one message at a time. Nobody waits for another."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="callback")
        self._out: dict[Receiver, Future[int]] = {}

    def begin(self) -> list[Future[int]]:
        """Tell what is due to those who are not being told yet; each gives how many messages were taken."""
        self._out = {who: told for who, told in self._out.items() if not told.done()}
        allowed = networks(self._service.settings.callbacks.allowed_networks)
        begun = {
            who: self._pool.submit(self._tell, letters, allowed)
            for who, letters in due(self._service, self._out).items()
        }
        self._out |= begun
        return list(begun.values())

    def end(self) -> None:
        """Begin nothing more, and wait for the attempts that have begun."""
        self._over.set()
        self._pool.shutdown(cancel_futures=True)

    def _tell(self, letters: Sequence[Letter], allowed: Sequence[Network]) -> int:
        """Try messages once; the rest is left to a later round where the receiver is silent or slow."""
        begun, taken = time.monotonic(), 0
        try:
            for letter in letters:
                if self._over.is_set():
                    break
                answer = attempt(letter, self._service, allowed)
                taken += _note(self._service, letter, answer)
                if answer.status is None or time.monotonic() - begun > SECONDS:
                    break
        except SQLAlchemyError:
            log.warning("callbacks not noted: the database is away")
        except Exception:  # the edge of the thread: nobody else would say it
            log.exception("callbacks not sent")
        return taken


class Courier:
    """Sends what is due, every second, while `may` says that this process is the one."""

    def __init__(self, service: Service, may: Callable[[], bool]) -> None:
        self._may = may
        self._rounds = Rounds(service)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._rounds.end()

    def _run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            try:
                if self._may():
                    self._rounds.begin()
            except SQLAlchemyError:
                log.warning("callbacks not sent: the database is away")
            except Exception:  # the edge: a message that failed must not be the last
                log.exception("callbacks not sent")


def attempt(letter: Letter, service: Service, allowed: Sequence[Network]) -> Answer:
    """Post a message once, within `SECONDS`."""
    with service.db.read() as session:
        timestamp = int(clock(session).timestamp())
    name = ids.encode("dlv", letter.id)
    headers = signing.headers(name, timestamp, letter.body, letter.key)
    limits = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)
    try:
        with (
            httpcore.ConnectionPool(network_backend=Guarded(allowed, Deadline(SECONDS))) as pool,
            pool.stream(
                "POST",
                letter.url,
                headers=list(headers.items()),
                content=letter.body,
                extensions={"timeout": limits},
            ) as answer,
        ):
            after = dict(answer.headers).get(b"Retry-After") or dict(answer.headers).get(b"retry-after")
            return Answer(answer.status, retry_after=_seconds(after))
    except Refused:
        return Answer(None, "the address is private")
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        return Answer(None, type(error).__name__)


def wait_after(attempts: int, answer: Answer) -> float | None:
    """Seconds until the next attempt, when `attempts` have failed; `None`: there is none."""
    if answer.status == GONE or attempts > len(WAITS):
        return None
    wait = WAITS[attempts - 1] * (1 + random.uniform(0, JITTER))
    if answer.status in HOLDS_ON and answer.retry_after is not None:
        wait = max(wait, min(answer.retry_after, LONGEST_WAIT))
    return wait


def _note(service: Service, letter: Letter, answer: Answer) -> bool:
    with service.db.begin() as session:
        row = session.get_one(Delivery, letter.id, with_for_update=True)
        now: datetime = clock(session)
        row.attempts += 1
        row.last_status, row.last_error = answer.status, answer.error
        if answer.is_taken:
            row.state, row.delivered_at, row.next_at = "delivered", now, None
        elif (wait := wait_after(row.attempts, answer)) is None:
            row.state, row.next_at = "failed", None
        else:
            row.next_at = now + timedelta(seconds=wait)
    return answer.is_taken


def _seconds(text: bytes | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None
