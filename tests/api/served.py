"""Runs the app in a process of its own on a socket: `python -m tests.api.served DATA_DIR SOCKET`."""

import sys
from pathlib import Path

import uvicorn

from app.config import Settings
from app.main import create_app
from app.service import open_service
from app.services import schema
from app.services.callers import access


def main(data_dir: str, socket: str) -> None:
    service = open_service(Settings(data_dir=Path(data_dir)))
    schema.upgrade(service.db)
    access.bootstrap(service)
    uvicorn.run(create_app(service), uds=socket, log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
