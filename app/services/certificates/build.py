"""The content of a certificate, from what the rows and key objects say when it is issued.

Ids, counts, settings, times and blinded digests of what stands; never an identifier or a digest of what was
erased.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import __version__, ids
from app.db import clock
from app.errors import ArtifactCorrupt
from app.proof.reproduce import blinded
from app.service import Service
from app.services.certificates import claims, provenance, recipes, statements
from app.services.erasure import ledger
from app.tables import (
    AuditEvent,
    ErasedRow,
    ForgetItem,
    ForgetRequest,
    ForgetTarget,
    LedgerEntry,
    Model,
    Version,
)

FORMAT = "palimpsest-certificate/1"
DIGESTS = ("weights", "statistics")
KEPT = "certificates"  # in `Session.info`

T = TypeVar("T")
Json = dict[str, Any]
Gone = dict[UUID, set[int]]


def content(service: Service, session: Session, request: ForgetRequest, certificate_id: UUID) -> Json:
    """Everything that is signed but the key that signs."""
    now = clock(session)
    gone = _erased(session, request)
    items = version_items(session, request)
    versions = [_version(service, session, item, gone) for item in items]
    exports = statements.exports(session, gone, [item.resource_id for item in items])
    rebuilds = request.evidence.get("rebuilds", [])
    exceptions = _exceptions(session, request)
    return {
        "format": FORMAT,
        "id": ids.encode("crt", certificate_id),
        "issued_at": statements.time(now),
        "software": {"name": "palimpsest", "version": __version__},
        "request": _request(request),
        "asked": _asked(session, request),
        "found": _found(request, gone, items, exports),
        "claim": claims.claim(
            [version["level"] for version in versions],
            rows=bool(gone),
            left=any(one.get("code") == "shared-rows" for one in exceptions),
            rebuilds=rebuilds,
        ),
        "versions": versions,
        "rebuilds": plain(rebuilds),
        "stages": {name: _times(found) for name, found in request.stages.items()},
        "ledger": {"sequence": request.sequence, "head": kept(session, "ledger", _ledger_head)},
        "audit": kept(session, "audit", _audit_head),
        "exceptions": plain(exceptions),
        "uncovered": statements.uncovered(request, versions, exports),
        "residuals": statements.residuals(service, session, now),
        "exports": exports,
    }


def plain(value: Any) -> Any:
    """A value of the database as canonical JSON takes it: whole numbers of 2**53 and more as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, float) and value - value != 0:  # JSON has no infinity
        return str(value)
    return value


def _erased(session: Session, request: ForgetRequest) -> Gone:
    """The rows that the request's entry of the ledger takes away."""
    found: Gone = {}
    if request.sequence is not None:
        query = select(ErasedRow.dataset_id, ErasedRow.position).filter_by(sequence=request.sequence)
        for dataset_id, position in session.execute(query):
            found.setdefault(dataset_id, set()).add(position)
    return found


def version_items(session: Session, request: ForgetRequest) -> list[ForgetItem]:
    """One per version that the request touched; those of a duplicate stand under the one that it joined."""
    query = (
        select(ForgetItem)
        .filter_by(request_id=request.duplicate_of or request.id, kind="version")
        .order_by(ForgetItem.resource_id)
    )
    return list(session.scalars(query))


def _version(service: Service, session: Session, item: ForgetItem, gone: Gone) -> Json:
    """One affected version and what stands in its place."""
    old = _row(session, Version, item.resource_id)
    model = _row(session, Model, old.model_id)
    detail = item.detail
    found: Json = {
        "model": ids.encode("mdl", model.id),
        "replaced": {"version": ids.encode("ver", old.id), "number": old.number, "state": old.state},
        "way": detail.get("way"),
        "seconds": plain(detail.get("seconds")),
        "checks": plain(detail.get("checks") or {}),
        "network_before": provenance.of(session, model, old, gone),
        "replacing": None,
        "guarantee": detail.get("guarantee"),
        "level": None,
    }
    if not detail.get("replacement_id"):
        return found
    new = _row(session, Version, UUID(hex=detail["replacement_id"]))
    network = provenance.of(session, model, new, gone)
    checks = detail.get("checks") or {}
    found["level"] = claims.level(
        str(detail.get("guarantee")), checks, network["extractor_trained_on_subject"]
    )
    found["replacing"] = {
        "version": ids.encode("ver", new.id),
        "number": new.number,
        "state": new.state,
        "network": network,
        **_making(service, session, new),
    }
    return found


def _making(service: Service, session: Session, version: Version) -> Json:
    """Blinded digests and recipe."""

    def make(session: Session) -> Json:
        described = recipes.of(session, version).describe()
        return {"digests": digests(service, version), "recipe": described}

    return kept(session, version.id, make)


def _row(session: Session, table: type[T], id: UUID) -> T:
    return kept(session, (table.__name__, id), lambda session: session.get_one(table, id))


def kept(session: Session, key: Hashable, make: Callable[[Session], T]) -> T:
    """What is the same for every request of a batch, made once and kept while the session lives."""
    found: dict[Hashable, T] = session.info.setdefault(KEPT, {})
    if key not in found:
        found[key] = make(session)
    return found[key]


def digests(service: Service, version: Version) -> Json | None:
    """Under the version's nonce; nothing where it was replaced or retired since, for it dies with it."""
    if version.state != "ready":
        return None
    try:
        key = service.vault.key(version.key_id)
    except ArtifactCorrupt:
        return None
    if key.nonce is None:
        return None
    return {name: blinded(key.nonce, key.digests[name]) for name in DIGESTS if name in key.digests}


def _request(request: ForgetRequest) -> Json:
    models = None if request.models is None else [ids.encode("mdl", UUID(hex=id)) for id in request.models]
    return {
        "id": ids.encode("fgt", request.id),
        "external_id": request.external_id,
        "duplicate_of": request.duplicate_of and ids.encode("fgt", request.duplicate_of),
        "scope": request.scope,
        "models": models,
        "shared_rows": request.shared_rows,
        "method": plain(request.method),
        "accept": request.accept,
        "regulation": request.regulation,
        "submitted_at": statements.time(request.submitted_at),
        "received_at": statements.time(request.created_at),
        "due_at": statements.time(request.due_at),
        "extension": plain(request.extension),
        "decided_by": request.decider,
    }


def _asked(session: Session, request: ForgetRequest) -> Json:
    identifiers = session.scalar(select(func.count()).where(ForgetTarget.request_id == request.id))
    return {"entries": request.persons, "identifiers": identifiers}


def _found(request: ForgetRequest, gone: Gone, items: list[ForgetItem], exports: list[Json]) -> Json:
    """Counts: of what was found, and those that the stages left in the request."""
    stages = {
        name: value
        for name, value in request.evidence.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    return {
        **plain(stages),
        "rows": sum(len(positions) for positions in gone.values()),
        "datasets": len(gone),
        "versions": len(items),
        "exports": len(exports),
    }


def _exceptions(session: Session, request: ForgetRequest) -> list[Json]:
    """What was not done: of a duplicate also what was not done for the request that it joined."""
    if request.duplicate_of is None:
        return list(request.exceptions)
    joined = session.get_one(ForgetRequest, request.duplicate_of)
    return [*joined.exceptions, *(one for one in request.exceptions if one not in joined.exceptions)]


def _times(found: Mapping[str, str | None]) -> Json:
    """When a stage began and ended, written as every time is."""
    return {name: at and statements.time(datetime.fromisoformat(at)) for name, at in found.items()}


def _ledger_head(session: Session) -> Json:
    sequence = ledger.sequence(session)
    entry = session.get(LedgerEntry, sequence) if sequence else None
    return {"sequence": sequence, "created_at": entry and statements.time(entry.created_at)}


def _audit_head(session: Session) -> Json:
    """The newest link of the audit chain: it stands on every step that came before."""
    row = session.execute(
        select(AuditEvent.sequence, AuditEvent.hash).order_by(AuditEvent.sequence.desc()).limit(1)
    ).one_or_none()
    return {"sequence": row[0] if row else 0, "hash": row[1] if row else None}
