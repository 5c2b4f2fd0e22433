"""What every request passes: its id, its line in the log, what may be stored of its answer."""

from __future__ import annotations

import io
import json
import logging

import pytest

from app import logs
from app.api.etags import etag, matches, require_match
from app.errors import PreconditionFailed, PreconditionRequired
from app.services.jobs import reads as job_reads
from tests.api.teaching import a_model


@pytest.fixture
def lines():
    """What the process logs while the test runs, each line as an object."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = before
    root.setLevel(level)


def test_writes_one_line_for_a_request_with_what_is_needed_to_find_it(client, lines, tenant):
    client.get("/v1/jobs", headers={"X-Request-Id": "find-me"})

    found = [line for line in lines() if line.get("request_id") == "find-me"]

    assert len(found) == 1
    line = found[0]
    assert (line["event"], line["level"], line["route"], line["status"]) == ("request", "info", "/jobs", 200)
    assert line["tenant"] == tenant.id.hex
    assert line["ms"] >= 0
    assert line["timestamp"].endswith("Z")


def test_lines_of_work_done_for_a_request_carry_its_id(client, lines, monkeypatch):
    def noisy(*_):
        logging.getLogger("app.anything").warning("in a thread", extra={"job_id": "j"})
        raise RuntimeError("broken")

    monkeypatch.setattr(job_reads, "read", noisy)

    client.get("/v1/jobs/job_01jd8x4r9kf3v5n2m7q6t0a1bc", headers={"X-Request-Id": "r1"})

    mine = [line for line in lines() if line.get("request_id") == "r1"]
    assert [line["event"] for line in mine] == ["in a thread", "request failed", "request"]
    assert mine[0]["job_id"] == "j"
    assert "RuntimeError: broken" in mine[1]["exception"]


def test_a_line_never_holds_the_secret_of_a_key(client, lines, admin_token):
    client.get("/v1/jobs")
    client.get("/v1/jobs", headers={"Authorization": "Bearer key_x.my-secret"})

    text = json.dumps(lines())
    assert admin_token.partition(".")[2] not in text
    assert "my-secret" not in text


def test_answers_are_not_stored_unless_they_can_be_asked_for_again(client):
    assert client.get("/v1/api-keys").headers["cache-control"] == "no-store"
    assert client.get("/v1/jobs/nothing").headers["cache-control"] == "no-store"


def test_a_request_id_is_made_where_none_was_sent(client):
    first, second = (client.get("/livez").headers["x-request-id"] for _ in range(2))

    assert first.startswith("req_")
    assert first != second


@pytest.mark.parametrize(
    ("header", "weak", "expected"),
    [
        ('"3"', False, True),
        ('"2", "3"', False, True),
        ("*", False, True),
        ('"4"', False, False),
        ('W/"3"', False, False),
        ('W/"3"', True, True),
        ("3", False, False),
        (None, False, False),
    ],
)
def test_compares_tags_strongly_for_changes_and_weakly_for_reads(header, weak, expected):
    assert matches(header, etag(3), weak=weak) is expected


def test_a_change_needs_the_tag_that_was_read():
    require_match('"3"', 3)
    with pytest.raises(PreconditionRequired):
        require_match(None, 3)
    with pytest.raises(PreconditionFailed):
        require_match('"2"', 3)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/mdl_x/updates", "/v1/api-keys"])
@pytest.mark.parametrize("media", ["text/plain", "application/zip", "application/x-npy"])
def test_a_large_body_is_taken_only_where_it_is_streamed(client, service, path, media):
    body = b"0" * (service.settings.limits.json_bytes + 1)

    answer = client.post(path, content=body, headers={"Content-Type": media, "Idempotency-Key": "large"})

    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


@pytest.mark.parametrize("number", [0, 2**31, 10**30])
@pytest.mark.parametrize("path", ["versions/{}", "versions/{}/artifact", "versions/{}/lineage"])
def test_a_number_that_no_version_can_have_is_not_found(client, number, path):
    model = a_model(client)["id"]

    answer = client.get(f"/v1/models/{model}/{path.format(number)}")

    assert answer.status_code == 404, answer.text


def test_a_body_may_not_name_such_a_number_either(client):
    model = a_model(client)["id"]

    asked = client.post(f"/v1/models/{model}/predict", json={"version": 10**30, "inputs": [[0.0]]})
    moved = client.put(f"/v1/models/{model}/aliases/live", json={"version": 10**30, "reason": "none"})

    assert (asked.status_code, moved.status_code) == (422, 422)
