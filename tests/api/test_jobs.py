"""Jobs over HTTP: reading, waiting, following, cancelling, trying again."""

from __future__ import annotations

import json
import threading

import pytest

from app import ids
from app.api import jobs as routes
from app.services import jobs
from app.services.jobs import Cause, Urgency
from tests.api.conftest import both_stacks
from tests.api.teaching import a_dataset, a_model, update
from tests.factories import a_job


@pytest.fixture
def job(service, tenant):
    return a_job(service, tenant)


def address(job, rest=""):
    return f"/v1/jobs/{ids.encode('job', job.id)}{rest}"


def claim(service):
    claimed = jobs.claim(service, ["cpu"], "cpu-0")
    assert claimed is not None
    return claimed


def run(service, **result):
    """What a worker does with the next job."""
    claimed = claim(service)
    jobs.progress(service, claimed, {"fraction": 0.5, "phase": "train", "message": "epoch 1/2"})
    with service.db.begin() as session:
        jobs.finish(session, claimed, result)


def told(answer):
    """The events of a stream: id, event, data."""
    events = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return events


def test_shows_a_queued_job_with_every_field(client, job):
    shown = client.get(address(job)).json()

    assert shown["id"] == ids.encode("job", job.id)
    assert (shown["kind"], shown["state"], shown["done"]) == ("nap", "queued", False)
    assert (shown["result"], shown["error"], shown["blocked_by"]) == (None, None, [])
    assert shown["links"]["events"] == address(job, "/events")
    assert shown["created_at"].endswith("Z")


def test_shows_a_job_that_ended_with_its_result(client, service, job):
    run(service, version=3)

    shown = client.get(address(job)).json()

    assert (shown["state"], shown["done"], shown["result"], shown["error"]) == (
        "succeeded",
        True,
        {"version": 3},
        None,
    )
    assert shown["progress"]["fraction"] == 1.0


def test_shows_why_a_job_failed(client, service, job):
    claimed = claim(service)
    jobs.fail(service, claimed, Cause.INVALID_INPUT, "too few rows")

    shown = client.get(address(job)).json()

    assert (shown["state"], shown["done"], shown["result"]) == ("failed", True, None)
    assert (shown["error"]["cause"], shown["error"]["detail"]) == ("invalid-input", "too few rows")


def test_a_job_behind_the_writer_of_its_model_is_blocked_by_it(client, service, tenant):
    lane = ids.new()
    first = a_job(service, tenant, lane=lane, urgency=Urgency.ON_LANE)
    jobs.claim(service, ["cpu"], "cpu-0")
    second = a_job(service, tenant, lane=lane, urgency=Urgency.ON_LANE)

    shown = client.get(address(second)).json()

    assert (shown["state"], shown["blocked_by"]) == ("blocked", [ids.encode("job", first.id)])
    assert client.get(address(first)).json()["state"] == "running"


def test_lists_jobs_by_state_kind_and_age(client, service, tenant):
    ended = a_job(service, tenant, kind="purge")
    run(service)
    queued = a_job(service, tenant, kind="update")

    def found(**filters):
        return [item["id"] for item in client.get("/v1/jobs", params=filters).json()["items"]]

    assert found() == [ids.encode("job", ended.id), ids.encode("job", queued.id)]
    assert found(state="succeeded") == found(kind="purge") == [ids.encode("job", ended.id)]
    assert found(state="queued") == [ids.encode("job", queued.id)]
    assert found(created_after=ended.created_at.isoformat()) == [ids.encode("job", queued.id)]
    assert found(model=ids.encode("mdl", ids.new())) == []


def test_a_poll_with_its_etag_gets_304_until_the_job_moves(client, service, job):
    tag = client.get(address(job)).headers["etag"]

    same = client.get(address(job), headers={"If-None-Match": tag})
    run(service)
    moved = client.get(address(job), headers={"If-None-Match": tag})

    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert moved.status_code == 200
    assert moved.headers["etag"] != tag


@both_stacks
def test_waits_until_the_job_is_done(client, service, job):
    worker = threading.Timer(0.3, run, [service])
    worker.start()

    answer = client.get(address(job), headers={"Prefer": "wait=20"})

    worker.join()
    assert answer.json()["state"] == "succeeded"
    assert answer.headers["preference-applied"] == "wait=20"


def test_waits_no_longer_than_asked(client, job):
    answer = client.get(address(job), headers={"Prefer": "respond-async, wait=1"})

    assert answer.json()["state"] == "queued"
    assert answer.headers["preference-applied"] == "wait=1"


def test_a_wait_that_is_no_number_is_refused(client, job):
    assert client.get(address(job), headers={"Prefer": "wait=soon"}).status_code == 400


def test_a_wait_is_cut_to_thirty_seconds(client, service, job):
    run(service)

    answer = client.get(address(job), headers={"Prefer": "wait=999"})

    assert answer.headers["preference-applied"] == "wait=30"


@both_stacks
def test_tells_the_whole_story_and_closes(client, service, job):
    worker = threading.Timer(0.3, run, [service], {"version": 1})
    worker.start()

    answer = client.get(address(job, "/events"))

    worker.join()
    events = told(answer)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    assert "retry: 3000" in answer.text
    assert [event for _, event, _ in events] == ["state", "state", "progress", "state", "done"]
    assert [id for id, _, _ in events] == sorted({id for id, _, _ in events})
    assert events[2][2]["fraction"] == 0.5
    assert events[-1][2]["result"] == {"version": 1}


def test_resumes_behind_the_last_event_that_was_read(client, service, job):
    run(service)
    whole = told(client.get(address(job, "/events")))

    for number, (id, _, _) in enumerate(whole):
        rest = told(client.get(address(job, "/events"), headers={"Last-Event-ID": str(id)}))
        assert rest == whole[number + 1 :]


def test_many_clients_follow_one_job(client, service, job):
    stories = []
    readers = [
        threading.Thread(target=lambda: stories.append(told(client.get(address(job, "/events")))))
        for _ in range(8)
    ]
    for reader in readers:
        reader.start()
    run(service)
    for reader in readers:
        reader.join()

    assert len(stories) == 8
    assert all(story == stories[0] for story in stories)
    assert stories[0][-1][1] == "done"


def test_a_quiet_stream_is_kept_open_by_pings(client, service, job, monkeypatch):
    monkeypatch.setattr(routes, "PING_SECONDS", 0.05)
    worker = threading.Timer(0.5, run, [service])
    worker.start()

    answer = client.get(address(job, "/events"))

    worker.join()
    assert answer.text.count(": ping") >= 2


def test_an_event_id_that_is_none_is_refused(client, job):
    assert client.get(address(job, "/events"), headers={"Last-Event-ID": "x"}).status_code == 400


def test_shows_the_log_of_a_job_in_pages(client, service, job):
    with service.db.begin() as session:
        for number in range(3):
            jobs.say(session, job.id, job.created_at, "log", {"message": f"line {number}"})

    first = client.get(address(job, "/logs"), params={"page_size": 2})
    rest = client.get(first.links["next"]["url"]).json()

    lines = [line["data"]["message"] for line in first.json()["items"] + rest["items"]]
    assert lines == ["line 0", "line 1", "line 2"]
    assert rest["next_page_token"] == ""


def test_cancels_a_queued_job_at_once_and_only_once(client, job):
    answer = client.post(address(job, "/cancel"))
    again = client.post(address(job, "/cancel"))

    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert answer.headers["location"] == address(job)
    assert (again.status_code, again.json()["code"]) == (409, "job-not-cancellable")


def test_a_cancel_with_a_key_is_replayed(client, job):
    key = {"Idempotency-Key": "c1"}
    first, second = (client.post(address(job, "/cancel"), headers=key) for _ in range(2))

    assert second.json() == first.json()
    assert second.headers["idempotency-replayed"] == "true"


def test_asks_a_running_job_to_stop(client, service, job):
    claimed = claim(service)

    answer = client.post(address(job, "/cancel")).json()

    assert (answer["state"], answer["cancel_requested"], answer["done"]) == ("cancelling", True, False)
    assert jobs.look(service, claimed) is jobs.Signal.CANCEL


def test_a_retry_is_a_new_job_that_names_the_old_one(client, job):
    assert client.post(address(job, "/retry")).json()["code"] == "job-not-retryable"
    client.post(address(job, "/cancel"))

    answer = client.post(address(job, "/retry"))

    assert answer.status_code == 202
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["retry_of"] == ids.encode("job", job.id)
    assert client.get(answer.headers["location"]).json()["state"] == "queued"


def test_a_reader_may_not_cancel(client, job, key_with):
    assert client.post(address(job, "/cancel"), headers=key_with("read")).status_code == 403


@pytest.mark.parametrize(
    ("method", "rest"),
    [("GET", ""), ("GET", "/events"), ("GET", "/logs"), ("POST", "/cancel"), ("POST", "/retry")],
)
def test_another_tenants_job_is_not_there(client, job, stranger, method, rest):
    answer = client.request(method, address(job, rest), headers=stranger)

    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert client.get("/v1/jobs", headers=stranger).json()["items"] == []


def test_tries_again_once_at_a_time(client, service, job):
    client.post(address(job, "/cancel"))
    first = client.post(address(job, "/retry"))
    second = client.post(address(job, "/retry"))
    assert (first.status_code, second.status_code) == (202, 409)
    assert second.json()["code"] == "job-not-retryable"
    assert first.json()["id"] in second.json()["detail"]

    client.post(f"/v1/jobs/{first.json()['id']}/cancel")
    assert client.post(address(job, "/retry")).status_code == 202


@pytest.mark.parametrize("gone", ["models", "datasets"])
def test_does_not_try_again_what_was_deleted(client, gone):
    model = a_model(client)
    dataset = a_dataset(client)
    job = update(client, model, [dataset]).json()["id"]
    client.post(f"/v1/jobs/{job}/cancel")
    id = model["id"] if gone == "models" else dataset
    tag = {"If-Match": "*"}
    assert client.delete(f"/v1/{gone}/{id}", headers=tag).status_code == 202

    answer = client.post(f"/v1/jobs/{job}/retry")

    assert (answer.status_code, answer.json()["code"]) == (410, "purged"), answer.text
    assert [item["kind"] for item in client.get("/v1/jobs").json()["items"]] == ["update", "purge"]
