"""A signed line that says what rebuilding a certificate's versions came to, here and now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from app import __version__, ids
from app.db import clock
from app.errors import NotFound
from app.service import Service
from app.services.certificates import build, keys, rebuilds, statements
from app.services.certificates.signed import Signer
from app.tables import Certificate, Version

FORMAT = "palimpsest-rebuild/1"
WORST_FIRST = ("different", "cannot", "equal")


def testify(service: Service, content: Mapping[str, Any]) -> bytes:
    """Rebuild every replacing version of a certificate of this service and sign what came of it.

    Writes nothing. Raises `NotFound` where the certificate, or a key that may sign, is not this service's.
    """
    with service.db.read() as session:
        row = session.get(Certificate, ids.decode("crt", str(content["id"])))
        key = None if row is None else keys.current(session, row.tenant_id)
        now = clock(session)
    if row is None:
        raise NotFound("this service issued no such certificate")
    if key is None:
        raise NotFound("no key signs now: make one with `palimpsest certificate key create`")
    replacing = [one["replacing"] for one in content["versions"] if one["replacing"]]
    lines = [_line(service, one) for one in replacing]
    outcomes = {line["outcome"] for line in lines}
    said = {
        "format": FORMAT,
        "certificate": content["id"],
        "request": content["request"]["id"],
        "at": statements.time(now),
        "software": {"name": "palimpsest", "version": __version__},
        "outcome": next((name for name in WORST_FIRST if name in outcomes), "equal"),
        "versions": build.plain(lines),
    }
    return Signer.of(service, key).seal(said)


def _line(service: Service, replacing: Mapping[str, Any]) -> dict[str, Any]:
    """What came of one version, which must be the one whose digests the certificate carries."""
    version_id = ids.decode("ver", replacing["version"])
    line = rebuilds.rebuild(service, version_id, rebuilds.context(service)).line()
    if line["outcome"] == "skipped":
        line["outcome"] = "cannot"  # nobody else makes it again for this certificate
    if line["equal"] and _digests(service, version_id) != replacing["digests"]:
        line |= {"equal": False, "outcome": "different", "reason": "the certificate carries other digests"}
    return line


def _digests(service: Service, version_id: UUID) -> dict[str, Any] | None:
    with service.db.read() as session:
        return build.digests(service, session.get_one(Version, version_id))
