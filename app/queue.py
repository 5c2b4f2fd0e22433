"""The bell: tells a worker that a job is queued. The message is a job id and nothing else."""

from __future__ import annotations

import logging
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError

from app.config import Settings

log = logging.getLogger(__name__)

RING = "palimpsest.ring"
VISIBILITY_SECONDS = 3600


def celery_app(settings: Settings) -> Celery:
    """The Celery client and worker configuration, the same in every process."""
    app = Celery("palimpsest")
    app.conf.update(
        broker_url=settings.broker.url or "filesystem://localhost",
        broker_transport_options=_transport(settings),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # the sweep is the only way a job is queued again
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_prefetch_multiplier=1,
        visibility_timeout=VISIBILITY_SECONDS,
        result_backend_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
        worker_soft_shutdown_timeout=30,
        worker_hijack_root_logger=False,
        task_create_missing_queues=True,
        task_default_queue="cpu",
    )
    return app


def _transport(settings: Settings) -> dict[str, object]:
    if settings.broker.url:
        return {
            "visibility_timeout": VISIBILITY_SECONDS,  # a longer job's ring comes again and claims nothing
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 1,
            "socket_timeout": 5,
            "socket_keepalive": True,
        }
    folder = settings.data_dir.absolute() / "broker"
    for name in ("queue", "processed", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "processed_folder": str(folder / "processed"),
        "control_folder": str(folder / "control"),
        "store_processed": False,
        "polling_interval": settings.broker.polling_seconds,
    }


class Bell:
    """Rings after a commit. A broker that is away costs nothing but time: the sweep rings again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app = self._connect()

    def ring(self, job_id: UUID, queue: str) -> bool:
        """Wake a worker of that queue; False where the broker is away."""
        app = self._app
        try:
            app.send_task(RING, args=[job_id.hex], queue=queue, retry=False)
        except Exception as error:  # whatever a broker does, what was accepted stays accepted
            log.warning("bell not heard", extra={"job_id": job_id.hex, "error": str(error)})
            self._app = self._connect()  # what it knew of the broker may be wrong now
            app.close()
            return False
        return True

    def answers(self) -> bool:
        """Whether the broker can be reached now."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=1)
        except (OperationalError, OSError):
            return False
        return True

    def close(self) -> None:
        self._app.close()

    def _connect(self) -> Celery:
        app = celery_app(self._settings)
        # one try: what connects again and again for minutes would keep the caller waiting
        app.conf.broker_transport_options["max_retries"] = 0
        return app
