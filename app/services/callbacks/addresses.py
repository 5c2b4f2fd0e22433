"""Where a callback may go: to public addresses, and to networks that the operator allows.

A name is looked at when a request is made and again each time a connection is opened, and the connection goes
to the address that was looked at: a name that points elsewhere by then gains nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import httpcore

from app.errors import ValidationFailed
from app.services.callbacks.deadline import Deadline, Timed

Network = IPv4Network | IPv6Network
MOST_CHARACTERS = 2_000
PORTS = {"https": 443, "http": 80}
NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: a translator sends these on to the IPv4 address within
# Other forms of IPv4 in IPv6, which a network may yet send on, and addresses of sites: global to Python
NEVER = [
    IPv6Network("::/96"),  # RFC 4291 2.5.5.1, IPv4-compatible
    IPv6Network("::ffff:0:0:0/96"),  # RFC 2765, IPv4-translated
    IPv6Network("64:ff9b:1::/48"),  # RFC 8215, translation within a site
    IPv6Network("fec0::/10"),  # RFC 3879, addresses of a site
]


class Refused(OSError):
    """The name stands for an address that callbacks may not reach."""


def networks(text: str) -> list[Network]:
    """The networks of a setting: `10.1.0.0/16, fd00::/8`. Raises `ValueError`."""
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def check(url: str, allowed: Sequence[Network]) -> None:
    """Refuse what cannot be a callback. A name that nobody knows now may be known when it is called."""
    parts = urlsplit(url)
    try:
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        raise _fault("the port is not a number below 65536") from None
    if len(url) > MOST_CHARACTERS or not parts.hostname or port is None:
        raise _fault(f"a callback is an https address of at most {MOST_CHARACTERS} characters")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _fault("a callback has no user, password or fragment in its address")
    try:
        found = resolve(parts.hostname, port)
    except OSError:
        found = []
    if any(not may_reach(one, allowed) for one in found):
        raise _fault("the callback's address is private: ask the operator to allow its network")
    if parts.scheme != "https" and not (found and all(is_in(one, allowed) for one in found)):
        raise _fault("a callback is https")


def resolve(host: str, port: int) -> list[IPv4Address | IPv6Address]:
    """The addresses of a name, each once; raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(info[4][0]).partition("%")[0]) for info in found))


def may_reach(address: IPv4Address | IPv6Address, allowed: Sequence[Network]) -> bool:
    """Whether callbacks may go there. An IPv4 address inside an IPv6 one counts as itself."""
    plain = _within(address) or address
    if is_in(plain, allowed):
        return True
    return plain.is_global and not plain.is_multicast and not is_in(plain, NEVER)


def is_in(address: IPv4Address | IPv6Address, allowed: Sequence[Network]) -> bool:
    return any(address in network for network in allowed if network.version == address.version)


class Guarded(httpcore.NetworkBackend):
    """Opens connections to the addresses that it has looked at, and to no other; each ends at a deadline."""

    def __init__(self, allowed: Sequence[Network], deadline: Deadline) -> None:
        self._allowed = allowed
        self._deadline = deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises `Refused`, or what the network says."""
        try:
            found = resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"the name is not known: {error.strerror}") from None
        if not found or any(not may_reach(one, self._allowed) for one in found):
            raise Refused("the callback's address is private")
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        opened = self._plain.connect_tcp(str(found[0]), port, left, local_address, socket_options)
        return Timed(opened, self._deadline)


def _within(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that stands in a mapped, 6to4 or NAT64 one."""
    if isinstance(address, IPv4Address):
        return None
    if address in NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


def _fault(message: str) -> ValidationFailed:
    return ValidationFailed(message, pointer="/callback/url")
