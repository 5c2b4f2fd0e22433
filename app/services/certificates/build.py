"""The content of a certificate, from what the rows and key objects say when it is issued.

Ids, counts, settings, times and blinded digests of what stands; never an identifier or a digest of what was
erased.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import __version__, ids
from app.errors import ArtifactCorrupt
from app.proof.reproduce import blinded
from app.service import Service
from app.services.certificates import claims, provenance, recipes, statements
from app.services.certificates.gathered import Facts, Gathered, replacement
from app.services.erasure import ledger
from app.tables import AuditEvent, ForgetItem, ForgetRequest, LedgerEntry, Version

FORMAT = "palimpsest-certificate/1"
DIGESTS = ("weights", "statistics")

Json = dict[str, Any]


def content(gathered: Gathered, request_id: UUID, certificate_id: UUID) -> Json:
    """Everything that is signed but the key that signs."""
    facts, session = gathered.facts[request_id], gathered.session
    request = facts.request
    versions = [_version(gathered, item, facts) for item in facts.items]
    exports = statements.exports(facts.exports)
    rebuilds = request.evidence.get("rebuilds", [])
    exceptions = _exceptions(facts)
    return {
        "format": FORMAT,
        "id": ids.encode("crt", certificate_id),
        "issued_at": statements.time(gathered.now),
        "software": {"name": "palimpsest", "version": __version__},
        "request": _request(request),
        "asked": {"entries": request.persons, "identifiers": facts.identifiers},
        "found": _found(facts),
        "claim": claims.claim(
            [version["level"] for version in versions],
            rows=bool(facts.gone),
            left=any(one.get("code") == "shared-rows" for one in exceptions),
            rebuilds=rebuilds,
        ),
        "versions": versions,
        "rebuilds": plain(rebuilds),
        "stages": {name: _times(found) for name, found in request.stages.items()},
        "ledger": {
            "sequence": request.sequence,
            "head": gathered.once("ledger", lambda: _ledger_head(session)),
        },
        "audit": gathered.once("audit", lambda: _audit_head(session)),
        "exceptions": plain(exceptions),
        "uncovered": statements.uncovered(request, versions, exports),
        "residuals": statements.residuals(gathered.service, session, gathered.now),
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


def _version(gathered: Gathered, item: ForgetItem, facts: Facts) -> Json:
    """One affected version and what stands in its place."""
    old = gathered.versions[item.resource_id]
    detail = item.detail
    found: Json = {
        "model": ids.encode("mdl", old.model_id),
        "replaced": {"version": ids.encode("ver", old.id), "number": old.number, "state": old.state},
        "way": detail.get("way"),
        "seconds": plain(detail.get("seconds")),
        "checks": plain(detail.get("checks") or {}),
        "network_before": _network(gathered, old, facts),
        "replacing": None,
        "guarantee": detail.get("guarantee"),
        "level": None,
    }
    new_id = replacement(item)
    if new_id is None:
        return found
    new = gathered.versions[new_id]
    network = _network(gathered, new, facts)
    checks = detail.get("checks") or {}
    found["level"] = claims.level(
        str(detail.get("guarantee")), checks, network["extractor_trained_on_subject"]
    )
    found["replacing"] = {
        "version": ids.encode("ver", new.id),
        "number": new.number,
        "state": new.state,
        "network": network,
        **gathered.once(("making", new.id), lambda: _making(gathered, new)),
    }
    return found


def _network(gathered: Gathered, version: Version, facts: Facts) -> dict[str, str]:
    """Whether a version's network saw the rows."""
    model, source = gathered.models[version.model_id], gathered.sources[version.feature_map_id]
    return provenance.of(model, source, facts.gone, gathered.learned_by)


def _making(gathered: Gathered, version: Version) -> Json:
    """Blinded digests and recipe."""
    described = recipes.of(gathered.session, version).describe()
    return {"digests": digests(gathered.service, version), "recipe": described}


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


def _found(facts: Facts) -> Json:
    """Counts: of what was found, and those that the stages left in the request."""
    stages = {
        name: value
        for name, value in facts.request.evidence.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    return {
        **plain(stages),
        "rows": sum(len(positions) for positions in facts.gone.values()),
        "datasets": len(facts.gone),
        "versions": len(facts.items),
        "exports": len(facts.exports),
    }


def _exceptions(facts: Facts) -> list[Json]:
    """What was not done: of a duplicate also what was not done for the request that it joined."""
    own = facts.request.exceptions
    joined = facts.joined.exceptions if facts.joined else []
    return [*joined, *(one for one in own if one not in joined)]


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
