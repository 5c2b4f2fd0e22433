"""Somebody who is called back: a real HTTP server on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

from app.services.callbacks.courier import Rounds

PATIENCE = 10.0  # seconds


@dataclass
class Receiver:
    """Answers with the statuses it is told, the last one for ever, and remembers what came."""

    statuses: list[int] = field(default_factory=lambda: [204])
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""
    may_answer: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens until the block ends."""
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
            told.may_answer.wait(PATIENCE)
            status = told.statuses.pop(0) if len(told.statuses) > 1 else told.statuses[0]
            self.send_response(status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def dripping() -> Iterator[str]:
    """The address of somebody whose answer comes a byte at a time for some seconds."""
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.recv(65_536)
            try:
                for byte in b"HTTP/1.1 204 No Content\r\nSlow: " + b"y" * 250:
                    if over.wait(0.01):
                        return
                    peer.sendall(bytes([byte]))
                peer.sendall(b"\r\n\r\n")
            except OSError:
                return  # the other side hung up

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/hook"
    finally:
        over.set()
        thread.join()
        listening.close()


def send_due(service):
    """Try what is due once and wait for the answers; how many were taken."""
    rounds = Rounds(service)
    begun = rounds.begin()
    taken = sum(told.result() for told in begun)
    rounds.end()
    return taken
