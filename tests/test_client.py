"""The client: keys, repeats, waiting, problems. The service is a function from request to response."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from app.client import Client, Problem, Unreachable, media_type

Handler = Callable[[httpx.Request], httpx.Response]


class Recorder:
    """Answers with a list of responses or errors, in order, and remembers requests and pauses."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        self._answers = iter(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self) -> Client:
        transport = httpx.MockTransport(self)
        return Client("http://service", "key_1.secret", transport=transport, sleep=self.pauses.append)


def ok(body: object = None) -> httpx.Response:
    return httpx.Response(200, json=body or {})


def busy(after: str) -> httpx.Response:
    return httpx.Response(503, headers={"Retry-After": after}, json={"code": "not-ready", "detail": "busy"})


def test_sends_its_key():
    service = Recorder(ok())
    with service.client() as api:
        api.get("models")

    assert service.requests[0].headers["Authorization"] == "Bearer key_1.secret"
    assert service.requests[0].url.path == "/v1/models"


def test_makes_a_fresh_idempotency_key_for_every_write():
    service = Recorder(ok(), ok())
    with service.client() as api:
        api.post("models", {})
        api.post("models", {})
    keys = [request.headers["Idempotency-Key"] for request in service.requests]

    assert len(set(keys)) == 2
    assert all(len(key) == 32 for key in keys)


def test_repeats_a_busy_write_with_the_same_key_after_the_time_asked_for():
    service = Recorder(busy("3"), busy("1"), ok({"id": "mdl_1"}))
    with service.client() as api:
        answer = api.post("models", {"name": "a"})

    assert answer == {"id": "mdl_1"}
    assert service.pauses == [3.0, 1.0]
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 1
    assert {request.content for request in service.requests} == {b'{"name":"a"}'}


def test_repeats_a_broken_call_and_gives_up_in_the_end():
    service = Recorder(*(httpx.ConnectError("refused") for _ in range(5)))
    with service.client() as api, pytest.raises(Unreachable, match="refused"):
        api.get("models")

    assert len(service.requests) == 5
    assert service.pauses == sorted(service.pauses)


def test_sends_a_file_anew_when_it_repeats(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,label\n1,x\n")
    service = Recorder(httpx.ReadError("broken"), ok({"id": "dst_1"}))
    with service.client() as api:
        api.send(file, label="x", split=None)

    assert [request.content for request in service.requests] == [file.read_bytes()] * 2
    assert service.requests[1].headers["Content-Type"] == "text/csv"
    assert dict(service.requests[1].url.params) == {"label": "x"}


def test_turns_a_problem_into_an_exception():
    fault = {"pointer": "/name", "code": "name-conflict", "message": "taken"}
    document = {
        "code": "name-conflict",
        "detail": "that name is taken",
        "errors": [fault],
        "request_id": "req_1",
    }
    service = Recorder(httpx.Response(409, json=document))
    with service.client() as api, pytest.raises(Problem) as caught:
        api.post("models", {})

    problem = caught.value
    assert (problem.status, problem.code, problem.request_id) == (409, "name-conflict", "req_1")
    assert problem.errors == [fault]
    assert str(problem) == "name-conflict: that name is taken"


def test_reads_a_refusal_that_is_no_problem_document():
    service = Recorder(httpx.Response(404, text="<html>"))
    with service.client() as api, pytest.raises(Problem, match="Not Found"):
        api.get("models")


def test_predicts_without_an_idempotency_key():
    service = Recorder(ok({"predictions": []}))
    with service.client() as api:
        api.predict("mdl_1", [[1.0]], alias="production", version=None)

    assert "Idempotency-Key" not in service.requests[0].headers
    assert json.loads(service.requests[0].content) == {"inputs": [[1.0]], "alias": "production"}


def test_walks_every_page():
    service = Recorder(
        ok({"items": [{"id": 1}, {"id": 2}], "next_page_token": "abc"}),
        ok({"items": [{"id": 3}], "next_page_token": ""}),
    )
    with service.client() as api:
        found = [item["id"] for item in api.items("jobs", state="queued", kind=None)]

    assert found == [1, 2, 3]
    assert [dict(r.url.params) for r in service.requests] == [
        {"state": "queued"},
        {"state": "queued", "page_token": "abc"},
    ]


def test_waits_until_a_job_is_done():
    service = Recorder(ok({"done": False, "state": "running"}), ok({"done": True, "state": "succeeded"}))
    with service.client() as api:
        job = api.wait("job_1")

    assert job["state"] == "succeeded"
    assert all(request.headers["Prefer"] == "wait=20" for request in service.requests)


def test_gives_up_waiting_after_its_time():
    service = Recorder(*(ok({"done": False, "state": "queued"}) for _ in range(3)))
    with service.client() as api, pytest.raises(TimeoutError, match="queued"):
        api.wait("job_1", timeout=0)


def stream(*chunks: bytes, broken: bool = False) -> httpx.Response:
    def body() -> Iterator[bytes]:
        yield from chunks
        if broken:
            raise httpx.ReadError("connection lost")

    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body())


def test_takes_a_broken_stream_up_where_it_ended():
    service = Recorder(
        stream(b'id: 7\nevent: progress\ndata: {"fraction": 0.5}\n\n', b": ping\n\n", broken=True),
        stream(b'id: 9\nevent: done\ndata: {"state": "succeeded"}\n\n'),
    )
    with service.client() as api:
        events = list(api.events("job_1"))

    assert [(event.sequence, event.name) for event in events] == [("7", "progress"), ("9", "done")]
    assert events[0].data == {"fraction": 0.5}
    assert "Last-Event-ID" not in service.requests[0].headers
    assert service.requests[1].headers["Last-Event-ID"] == "7"


def test_stops_following_after_its_time():
    service = Recorder(httpx.ReadTimeout("nothing came"))
    with service.client() as api, pytest.raises(TimeoutError):
        list(api.events("job_1", timeout=0))


def test_finds_key_and_address_in_the_data_directory(tmp_path):
    with pytest.raises(Unreachable, match="no service runs"):
        Client.local(tmp_path)

    (tmp_path / "admin.key").write_text("key_1.secret\n")
    (tmp_path / "address").write_text("http://127.0.0.1:1\n")
    with Client.local(tmp_path):
        pass


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.npz", "application/x-npz"), ("a.CSV", "text/csv"), ("a.zip", "application/zip"), ("a.bin", None)],
)
def test_names_a_format_by_its_suffix(tmp_path, name, kind):
    assert media_type(tmp_path / name) == (kind or "application/octet-stream")


def test_a_download_is_a_whole_file_or_none(tmp_path):
    answers = [httpx.Response(200, content=b"rows"), httpx.Response(409, json={"code": "version-tainted"})]
    with Client("http://palimpsest", "key", transport=httpx.MockTransport(lambda _: answers.pop(0))) as api:
        api.download("datasets/dst_1/export", tmp_path / "a.npz", version=1)
        with pytest.raises(Problem, match="version-tainted"):
            api.download("datasets/dst_1/export", tmp_path / "b.npz")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.npz", b"rows")]


def forget_request(state: str, **fields: object) -> httpx.Response:
    done = state in ("completed", "completed-with-exceptions", "rejected", "cancelled")
    return ok({"id": "fgt_1", "state": state, "done": done, **fields})


def test_asks_to_forget_under_a_key_and_previews_without_one():
    service = Recorder(ok({"id": "fgt_1"}), ok({"samples": 2}))
    with service.client() as api:
        api.forget({"any_of": ["ada", "customer 7"]}, regulation="gdpr", due_at=None)
        assert api.preview(["ada"], "samples") == {"samples": 2}
    asked, shown = service.requests

    assert asked.url.path == "/v1/forget-requests"
    assert json.loads(asked.content) == {
        "scope": "subject",
        "targets": {"any_of": ["ada", "customer 7"]},
        "regulation": "gdpr",
    }
    assert asked.headers["Idempotency-Key"]
    assert shown.url.path == "/v1/forget-requests/preview"
    assert json.loads(shown.content) == {"scope": "samples", "targets": ["ada"]}
    assert "Idempotency-Key" not in shown.headers


@pytest.mark.parametrize("end", ["completed", "completed-with-exceptions", "rejected", "cancelled", "failed"])
def test_waits_until_a_request_is_done_or_failed_and_shows_every_state(end):
    service = Recorder(forget_request("locating"), forget_request("purging"), forget_request(end))
    seen: list[str] = []
    with service.client() as api:
        assert api.wait_forget("fgt_1", seen=lambda found: seen.append(found["state"]))["state"] == end

    assert seen == ["locating", "purging", end]


def test_gives_up_waiting_for_a_request():
    service = Recorder(forget_request("awaiting-approval"))
    with service.client() as api, pytest.raises(TimeoutError, match="awaiting-approval"):
        api.wait_forget("fgt_1", timeout=0)


def test_takes_a_certificate_byte_for_byte_or_as_a_page():
    signed = b'{"a":1}'
    service = Recorder(httpx.Response(200, content=signed), httpx.Response(200, content=b"<html>"))
    with service.client() as api:
        assert api.certificate("fgt_1") == signed
        assert api.certificate("fgt_1", html=True) == b"<html>"
    assert [request.headers["Accept"] for request in service.requests] == ["application/json", "text/html"]
