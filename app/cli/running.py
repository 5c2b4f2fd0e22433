"""`palimpsest serve`, `worker`, `scheduler`: the processes of the service."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import config
from app.cli.options import DataDir, settings
from app.cli.show import say
from app.client import ADDRESS_FILE
from app.config import Settings

if TYPE_CHECKING:
    from app.service import Service

LOCK_FILE = "serve.lock"
QUEUES = ("cpu", "gpu", "io")
GRACE_SECONDS = 10  # for answers that are under way when the service is stopped


class Refused(Exception):
    """The process cannot start as things are; the message is for the operator."""


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (serve, worker, scheduler):
        app.command()(command)


def serve(
    api_only: Annotated[
        bool, typer.Option("--api-only", help="No workers and no scheduler: they run elsewhere.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Start the service: API, scheduler and workers, until Ctrl-C."""
    chosen = config.load({"data_dir": data_dir, "api.host": host, "api.port": port}).settings
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does, at any moment
    with ExitStack() as stack:
        try:
            start(chosen, api_only, stack)
        except KeyboardInterrupt:
            say("stopping")


def start(chosen: Settings, api_only: bool, stack: ExitStack) -> None:
    """Open what the service needs, last the port; whatever was opened closes with the stack."""
    chosen.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not api_only:  # which may be there more than once
        stack.enter_context(alone(chosen.data_dir))
    listener = stack.enter_context(listen(chosen.api.host, chosen.api.port))
    service = opened(chosen, stack, may_create=not chosen.database.url)

    from app.services.callers.access import bootstrap
    from app.services.scheduler import scheduling
    from app.services.supervise import THREADS_SLEEP, supervise

    os.environ.setdefault(*THREADS_SLEEP)  # read when torch is loaded, which is next

    from app.main import create_app

    bootstrap(service)
    if not api_only:
        stack.enter_context(supervise(chosen))
        stack.enter_context(scheduling(service))
    address = reachable(listener)
    with published(chosen.data_dir / ADDRESS_FILE, address) as publish:
        run_server(create_app(service), listener, lambda: announce(publish, address, chosen.data_dir))


def reachable(listener: socket.socket) -> str:
    """The address at which this machine reaches a socket that may listen on all of its addresses."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce(publish: Callable[[], None], address: str, data_dir: Path) -> None:
    """Tell people and other commands where the service listens, once it does."""
    publish()
    say(f"palimpsest listens on {address} (data in {data_dir}); its documentation is at {address}/docs")
    say("Ctrl-C stops it")


def run_server(app: Any, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve HTTP on an open socket until a signal comes; raises `KeyboardInterrupt` then."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                started()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.feed.close()  # streams of jobs end now, not when the grace is over
            await super().shutdown(sockets)

    Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            server_header=False,
        )
    ).run(sockets=[listener])


def opened(chosen: Settings, stack: ExitStack, *, may_create: bool = False) -> Service:
    """The service with its database at this release's schema; refuses to go on with any other."""
    from app import logs
    from app.service import open_service
    from app.services import schema

    logs.configure()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    service = open_service(chosen)
    stack.callback(service.close)
    try:
        if may_create:
            schema.prepare(service.db)
        else:
            schema.check(service.db)
    except schema.SchemaMismatch as mismatch:
        raise Refused(str(mismatch)) from None
    return service


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Hold a data directory; a second service on it is refused. The lock goes with the process."""
    with (data_dir / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"a service runs already in {data_dir.absolute()}") from None
        yield


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket; connections wait in it until the server takes them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise Refused(f"cannot listen on {host} port {port}: {error.strerror}") from None
        yield listener


@contextmanager
def published(path: Path, text: str) -> Iterator[Callable[[], None]]:
    """A file that other commands find while the block runs; written by the call that is handed out."""

    def publish() -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text + "\n")
        os.replace(temporary, path)

    path.unlink(missing_ok=True)
    try:
        yield publish
    finally:
        with suppress(FileNotFoundError):
            if path.read_text() == text + "\n":  # another's may stand there by now
                path.unlink()


def worker(
    queues: Annotated[str, typer.Option(help="Queues to work for, with commas between.")] = ",".join(QUEUES),
    data_dir: DataDir = None,
) -> None:
    """Start one worker: it takes jobs from its queues and computes one at a time."""
    unknown = set(queues.split(",")) - set(QUEUES)
    if unknown:
        raise typer.BadParameter(f"{sorted(unknown)[0]} is no queue; there are {', '.join(QUEUES)}")
    chosen = settings(data_dir)
    with ExitStack() as stack:
        opened(chosen, stack)

        from app.services.supervise import environment
    command = [sys.executable, "-m", "workers", "--queues", queues]
    os.execve(command[0], command, environment(chosen))  # the worker keeps this process id and its signals


def scheduler(data_dir: DataDir = None) -> None:
    """Start the scheduler: it looks for expired leases and jobs that were not rung."""
    chosen = settings(data_dir)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with ExitStack() as stack:
        service = opened(chosen, stack)

        from app.services.scheduler import scheduling

        stack.enter_context(scheduling(service))
        say("the scheduler sweeps; Ctrl-C stops it")
        over.wait()
