"""The courier: one thread of one process sends what is due, and tries again over a day.

Attempts are 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h after one another's failure, with
jitter. A 2xx is success; anything else, a redirect too, is not; 410 ends the attempts. What the receiver
answers is not kept, only its status.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import httpcore
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app import ids
from app.db import clock
from app.errors import ArtifactCorrupt
from app.service import Service
from app.services.callbacks import signing
from app.services.callbacks.addresses import Guarded, Network, Refused, networks
from app.services.callbacks.messages import EVENTS
from app.tables import Delivery, ForgetRequest

log = logging.getLogger(__name__)

WAITS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)  # seconds after each failure
JITTER = 0.1
SECONDS = 15.0  # of one attempt
POLL_SECONDS = 1.0
AT_ONCE = 4
GONE = 410
HOLDS_ON = (429, 502, 503, 504)  # whose Retry-After counts
LONGEST_WAIT = 86_400.0


@dataclass(frozen=True)
class Letter:
    """A message that is due."""

    id: UUID
    request_id: UUID
    url: str
    key: bytes
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What came of an attempt."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None

    @property
    def is_taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Courier:
    """Sends what is due, every second, while `may` says that this process is the one."""

    def __init__(self, service: Service, may: Callable[[], bool]) -> None:
        self._service = service
        self._may = may
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            try:
                if self._may():
                    send_due(self._service)
            except SQLAlchemyError:
                log.warning("callbacks not sent: the database is away")
            except Exception:  # the edge: a message that failed must not be the last
                log.exception("callbacks not sent")


def send_due(service: Service) -> int:
    """Try every message that is due once; returns how many were taken. Those of one request go one after the
    other, in the order of what they tell; requests do not wait for each other."""
    letters = _due(service)
    if not letters:
        return 0
    allowed = networks(service.settings.callbacks.allowed_networks)
    by_request: dict[UUID, list[Letter]] = {}
    for letter in letters:
        by_request.setdefault(letter.request_id, []).append(letter)
    groups = list(by_request.values())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answered = pool.map(lambda group: [attempt(one, service, allowed) for one in group], groups)
        pairs = (
            pair
            for group, answers in zip(groups, answered, strict=True)
            for pair in zip(group, answers, strict=True)
        )
        return sum(_note(service, letter, answer) for letter, answer in pairs)


def attempt(letter: Letter, service: Service, allowed: Sequence[Network]) -> Answer:
    """Post a message once."""
    with service.db.read() as session:
        timestamp = int(clock(session).timestamp())
    name = ids.encode("dlv", letter.id)
    headers = signing.headers(name, timestamp, letter.body, letter.key)
    limits = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)
    try:
        with (
            httpcore.ConnectionPool(network_backend=Guarded(allowed)) as pool,
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


def _due(service: Service) -> list[Letter]:
    with service.db.read() as session:
        now = clock(session)
        rows = session.execute(
            select(Delivery, ForgetRequest.callback_url, ForgetRequest.callback_key_id)
            .join(ForgetRequest, ForgetRequest.id == Delivery.request_id)
            .where(Delivery.state == "pending", Delivery.next_at <= now)
            .order_by(Delivery.next_at)
            .limit(100)
        ).all()
    letters = []
    for row, url, key_id in sorted(rows, key=lambda found: (found[0].next_at, EVENTS.index(found[0].event))):
        assert url is not None
        assert key_id is not None
        try:
            key = service.vault.key(key_id).key or b""
        except ArtifactCorrupt:
            _close(service, row.id, "the secret is gone")
            continue
        letters.append(Letter(row.id, row.request_id, url, key, signing.body_of(row.payload)))
    return letters


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


def _close(service: Service, delivery_id: UUID, why: str) -> None:
    with service.db.begin() as session:
        row = session.get_one(Delivery, delivery_id)
        row.state, row.next_at, row.last_error = "failed", None, why


def _seconds(text: bytes | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None
