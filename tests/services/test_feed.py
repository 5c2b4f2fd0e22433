"""The poller that serves everybody who waits for a job."""

import asyncio
import contextlib

import pytest

from app.services import jobs
from app.services.feed import Feed
from tests.factories import a_job


@pytest.fixture
def stack():
    return "embedded"


def test_no_error_of_one_look_ends_it(service, tenant, monkeypatch):
    job = a_job(service, tenant)
    claimed = jobs.claim(service, ["cpu"], "me")
    assert claimed is not None
    feed = Feed(service.db, every=0.01)
    real, failures = feed._read, iter([True, True])

    def flaky(readers):
        if next(failures, False):
            raise RuntimeError("a driver's own")
        return real(readers)

    monkeypatch.setattr(feed, "_read", flaky)

    async def wait():
        poller = asyncio.create_task(feed.run())
        with contextlib.suppress(asyncio.CancelledError):
            await feed.wait(job.id, 20)
            still_there = not poller.done()
            poller.cancel()
            await poller
        return still_there

    jobs.fail(service, claimed, jobs.Cause.TIMEOUT)
    assert asyncio.run(wait())
    assert next(failures, None) is None
