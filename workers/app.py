"""The Celery side of a worker. Reaches neither torch nor schemas nor methods."""

from __future__ import annotations

from celery import Celery

from app.config import Settings
from app.queue import RING, celery_app
from workers.tasks import Desk


def worker_app(settings: Settings, desk: Desk) -> Celery:
    """The Celery app of one worker: its only task is the ring."""
    app = celery_app(settings)
    app.conf.update(
        worker_pool="solo",  # nothing heavy runs here and nothing is forked
        worker_concurrency=1,
        worker_enable_remote_control=False,  # revoke and inspect are not used
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        broker_heartbeat=0,
    )

    def ring(job_id: str) -> None:
        desk.heard()
        desk.work()

    app.task(ring, name=RING)
    return app
