"""A small client of the HTTP API: makes its own idempotency keys, waits for jobs, raises on problems.

>>> with Client.local() as api:  # the service of ./palimpsest-data
...     dataset = api.send("digits.npz")
...     job = api.update("mdl_…", [dataset["id"]], "fetril", {"solver": "svm"})
...     job = api.wait(job["id"])

Answers are the JSON objects of the API. A problem (RFC 9457) becomes `Problem`. Only calls that may be
repeated are: reads, and writes that carry an idempotency key.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from app.events import follow
from app.webhooks import BadSignature, verify_webhook
from app.wire import Event, Json, Problem, Unreachable, document, media_type, pause

__all__ = [
    "ADDRESS_FILE",
    "KEY_FILE",
    "BadSignature",
    "Client",
    "Event",
    "Json",
    "Problem",
    "Unreachable",
    "media_type",
    "verify_webhook",
]

ADDRESS_FILE = "address"  # in the data directory while the service runs
KEY_FILE = "admin.key"  # in the data directory, mode 0600, from the first start on

Targets = Sequence[str | Mapping[str, Any]] | Mapping[str, Any]


class Client:
    """One connection to one service as one API key."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        attempts: int = 5,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}"},
            timeout=timeout,
            transport=transport,
        )
        self._attempts = attempts
        self._sleep = sleep

    @classmethod
    def local(cls, data_dir: Path | str = "palimpsest-data", url: str | None = None) -> Client:
        """The service that runs in a data directory on this machine, as its administrator."""
        folder = Path(data_dir)
        try:
            key = (folder / KEY_FILE).read_text().strip()
            return cls(url or (folder / ADDRESS_FILE).read_text().strip(), key)
        except FileNotFoundError as error:
            raise Unreachable(f"no service runs in {folder} (no file {error.filename})") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # ---- any route

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        file: Path | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        key: str | None = None,
        changes: bool = True,
    ) -> httpx.Response:
        """One call, repeated while the service is busy (429, 503) or away.

        `body` is sent as JSON, `file` as its bytes. A POST that `changes` something gets an idempotency key
        unless one is given, so that repeating it is safe.
        """
        sent = dict(headers or {})
        if method == "POST" and changes:
            sent["Idempotency-Key"] = key or uuid.uuid4().hex
        given = {name: value for name, value in (query or {}).items() if value is not None}
        for attempt in range(1, self._attempts + 1):
            try:
                answer = self._once(method, path, body, file, sent, given)
            except httpx.TransportError as error:
                if attempt == self._attempts:
                    raise Unreachable(f"no answer from {self._http.base_url}: {error}") from error
                self._sleep(pause(attempt, None))
                continue
            if answer.status_code in (429, 503) and attempt < self._attempts:
                self._sleep(pause(attempt, answer.headers.get("Retry-After")))
                continue
            break
        if answer.is_error:
            raise Problem(answer.status_code, document(answer))
        return answer

    def _once(
        self,
        method: str,
        path: str,
        body: Any,
        file: Path | bytes | None,
        headers: Mapping[str, str],
        query: Mapping[str, Any],
    ) -> httpx.Response:
        url = path if path.startswith("/") else f"/v1/{path}"
        if isinstance(file, Path):
            with file.open("rb") as stream:
                return self._http.request(
                    method, url, content=stream, headers=dict(headers), params=dict(query)
                )
        return self._http.request(
            method,
            url,
            content=file if file is not None else None,
            json=body if file is None else None,
            headers=dict(headers),
            params=dict(query),
        )

    def get(self, path: str, **query: Any) -> Json:
        """The JSON answer of a read."""
        return dict(self.call("GET", path, query=query).json())

    def items(self, path: str, **query: Any) -> Iterator[Json]:
        """Every item of a list, page by page."""
        token = ""
        while True:
            page = self.get(path, **query, **({"page_token": token} if token else {}))
            yield from page["items"]
            token = page.get("next_page_token", "")
            if not token:
                return

    def download(self, path: str, target: Path, **query: Any) -> None:
        """Write the answer of a read to a file as it comes; a file that is not whole is not left."""
        given = {name: value for name, value in query.items() if value is not None}
        part = target.with_name(target.name + ".part")
        try:
            with self._http.stream("GET", f"/v1/{path}", params=given) as answer, part.open("wb") as file:
                if answer.is_error:
                    answer.read()
                    raise Problem(answer.status_code, document(answer))
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            part.replace(target)
        except httpx.TransportError as error:
            raise Unreachable(f"{path} broke off: {error}") from error
        finally:
            part.unlink(missing_ok=True)

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> Json:
        """The JSON answer of a write."""
        return dict(self.call("POST", path, body=body, key=key).json())

    # ---- the routes that need more than a body

    def send(
        self,
        source: Path | str | bytes,
        content_type: str | None = None,
        *,
        key: str | None = None,
        **options: Any,
    ) -> Json:
        """Upload a dataset; options are the query fields, such as `name`, `label`, `split` and `model`."""
        content: Path | bytes = source if isinstance(source, bytes) else Path(source)
        kind = content_type or (media_type(content) if isinstance(content, Path) else "application/x-npz")
        answer = self.call(
            "POST", "datasets", file=content, headers={"Content-Type": kind}, query=options, key=key
        )
        return dict(answer.json())

    def update(
        self,
        model: str,
        datasets: Sequence[str],
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        **fields: Any,
    ) -> Json:
        """Ask for an update and answer its job; `fields` are base, alias, evaluation, on_conflict."""
        given = {name: value for name, value in fields.items() if value is not None}
        body = {"datasets": list(datasets), "method": {"name": method, "params": dict(params or {})}, **given}
        return self.post(f"models/{model}/updates", body, key=key)

    def predict(self, model: str, inputs: Any, **fields: Any) -> Json:
        """Predictions for inputs as nested lists; `fields` are alias or version, and top_k."""
        given = {name: value for name, value in fields.items() if value is not None}
        body = {"inputs": inputs, **given}
        return dict(self.call("POST", f"models/{model}/predict", body=body, changes=False).json())

    # ---- forgetting

    def forget(
        self, targets: Targets, scope: str = "subject", *, key: str | None = None, **fields: Any
    ) -> Json:
        """Ask for an erasure and answer the request; `fields` are those of the body, such as `models`,
        `regulation`, `due_at`, `external_id` and `callback`."""
        return self.post("forget-requests", _asked(targets, scope, fields), key=key)

    def preview(self, targets: Targets, scope: str = "subject", **fields: Any) -> Json:
        """What `forget` with the same arguments would touch; nothing is stored."""
        body = _asked(targets, scope, fields)
        return dict(self.call("POST", "forget-requests/preview", body=body, changes=False).json())

    def wait_forget(
        self, request: str, timeout: float | None = None, *, seen: Callable[[Json], None] | None = None
    ) -> Json:
        """The request once it is done or has failed; raises `TimeoutError` where it is not within `timeout`
        seconds. `seen` gets every state of it that is read on the way."""
        deadline = None if timeout is None else time.monotonic() + timeout
        wait = 0.1
        while True:
            found = self.get(f"forget-requests/{request}")
            if seen is not None:
                seen(found)
            if found["done"] or found["state"] == "failed":
                return found
            if deadline is not None and time.monotonic() + wait > deadline:
                raise TimeoutError(f"{request} is {found['state']} after {timeout:g} seconds")
            self._sleep(wait)
            wait = min(2.0, wait * 1.5)

    def certificate(self, request: str, *, html: bool = False) -> bytes:
        """The certificate of a completed request, byte for byte as it was signed, or a page to print."""
        accept = "text/html" if html else "application/json"
        path = f"forget-requests/{request}/certificate"
        return self.call("GET", path, headers={"Accept": accept}).content

    def wait(self, job: str, timeout: float | None = None) -> Json:
        """The job once it is done; raises `TimeoutError` where it is not within `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 20.0 if deadline is None else max(0.0, min(20.0, deadline - time.monotonic()))
            answer = self.call("GET", f"jobs/{job}", headers={"Prefer": f"wait={int(left)}"}).json()
            if answer["done"]:
                return dict(answer)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{job} is {answer['state']} after {timeout:g} seconds")
            if left < 1:
                self._sleep(min(left, 0.2))

    def events(self, job: str, timeout: float | None = None) -> Iterator[Event]:
        """The job's events until it is done; a broken stream is taken up where it ended."""
        return follow(self._http, job, timeout, self._attempts, self._sleep)


def _asked(targets: Targets, scope: str, fields: Mapping[str, Any]) -> Json:
    given = {name: value for name, value in fields.items() if value is not None}
    named = dict(targets) if isinstance(targets, Mapping) else list(targets)
    return {"scope": scope, "targets": named, **given}
