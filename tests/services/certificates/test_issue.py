"""Certificates, from the rows to the signed text, and checked without the service."""

import hashlib
import json
import re

import pytest
from sqlalchemy import event, select

from app import ids
from app.db import clock
from app.proof.verify import check, read_keys
from app.services import certificates
from app.services.certificates import keys
from app.tables import AuditEvent, Certificate, Export, ForgetRequest, Version
from tests.conftest import STACKS
from tests.services.certificates.forgetting import a_request, forgotten, issued, replaced


def published(service):
    return [public_key(row) for row in keys.every(service)]


def public_key(row):
    revoked = row.revoked_at and row.revoked_at.isoformat()
    text = json.dumps({"id": ids.encode("sgk", row.id), "public_key": row.public_key, "revoked_at": revoked})
    return read_keys(text.encode())[0]


@pytest.fixture
def stack(request):
    return getattr(request, "param", "embedded")


@pytest.fixture
def done(service, tenant, caller):
    return forgotten(service, tenant, caller)


@pytest.mark.parametrize("stack", STACKS, indirect=True)
def test_it_says_what_was_done_and_what_may_be_claimed(service, done):
    content = check(issued(service, done.request), published(service))

    assert content["request"]["id"] == ids.encode("fgt", done.request.id)
    assert content["request"]["external_id"] == "ticket 7 <b>"
    assert content["asked"] == {"entries": 1, "identifiers": 1}
    assert content["found"] == {"rows": 2, "datasets": 1, "versions": 1, "exports": 0, "shards_rewritten": 2}
    assert content["claim"]["level"] == "E"
    assert content["claim"]["status"] == "exact_by_construction"
    (version,) = content["versions"]
    assert version["replaced"]["version"] == ids.encode("ver", done.old.id)
    assert version["replacing"]["version"] == ids.encode("ver", done.new.id)
    assert version["replacing"]["network"]["extractor_trained_on_subject"] == "unknown"
    assert version["replacing"]["recipe"]["method"]["name"] == "analytic"
    assert version["replacing"]["recipe"]["steps"][0]["datasets"] == [
        {"dataset": ids.encode("dst", done.dataset.id), "role": "train", "rows": 16}
    ]
    assert content["ledger"]["sequence"] == done.request.sequence
    with service.db.read() as session:
        assert content["audit"]["hash"] in session.scalars(select(AuditEvent.hash)).all()
    assert any("Backups" in one["what"] for one in content["residuals"])
    dead_rows = any("PostgreSQL" in one["what"] for one in content["residuals"])
    assert dead_rows == (service.db.engine.dialect.name == "postgresql")


def test_it_carries_the_digests_of_what_replaced_the_erased_only_under_the_nonce(service, done):
    body = issued(service, done.request)
    old, new = (service.vault.key(version.key_id) for version in (done.old, done.new))

    (version,) = json.loads(body)["versions"]
    assert version["replacing"]["digests"] == {
        name: hashlib.sha256(new.nonce + bytes.fromhex(new.digests[name])).hexdigest()
        for name in ("weights", "statistics")
    }
    text = body.decode()
    bare = [*old.digests.values(), *new.digests.values(), "ab" * 32, new.nonce.hex(), old.nonce.hex()]
    assert [value for value in bare if value in text] == []
    assert (
        len(set(re.findall(r"[0-9a-f]{64}", text))) == 3
    )  # two blinded digests, the head of the audit chain


def test_it_is_issued_once(service, done):
    assert issued(service, done.request) == issued(service, done.request)
    with service.db.read() as session:
        assert len(session.scalars(select(Certificate)).all()) == 1


def test_many_are_issued_in_as_many_statements_as_two(service, done, tenant):
    requests = [a_request(service, tenant) for _ in range(14)]
    for request in requests[1:]:
        replaced(service, request, done.old, done.new)
    counted, bodies = [], []

    for some in (requests[:2], requests[2:]):
        statements: list[str] = []

        def note(*args, statements=statements):
            statements.append(args[2])

        with service.db.begin() as session:
            rows = [session.get_one(ForgetRequest, one.id) for one in some]
            event.listen(service.db.engine, "before_cursor_execute", note)
            found = certificates.issue_all(service, session, rows)
            event.remove(service.db.engine, "before_cursor_execute", note)
            counted.append(len(statements))
            bodies += [json.loads(row.body) for row in found]

    assert counted[1] <= counted[0]
    assert [one["request"]["id"] for one in bodies] == [ids.encode("fgt", one.id) for one in requests]
    assert [one["claim"]["level"] for one in bodies] == [None, *["E"] * 13]
    assert [len(one["versions"]) for one in bodies] == [0, *[1] * 13]


def test_for_a_person_that_is_nowhere_it_is_evidence_of_nothing_found(service, tenant):
    content = check(issued(service, a_request(service, tenant)), published(service))

    assert content["found"]["rows"] == content["found"]["versions"] == 0
    assert content["claim"] == {
        "level": None,
        "status": "nothing_to_clean",
        "sentence": "No stored row names what was to be erased, and no version was made from such a row.",
    }


def test_the_claim_is_that_of_the_weakest_version(service, done, tenant):
    replaced(service, a := a_request(service, tenant), done.old, done.new, guarantee="approximate")
    content = json.loads(issued(service, a))
    assert (content["claim"]["level"], content["claim"]["status"]) == ("A-", "approximate_without_reference")

    reference = {"reference": {"seeds": 3}}
    replaced(
        service,
        b := a_request(service, tenant),
        done.old,
        done.new,
        guarantee="approximate",
        checks=reference,
    )
    assert json.loads(issued(service, b))["claim"]["level"] == "A"

    replaced(service, c := a_request(service, tenant), done.old, done.new, guarantee="suppression")
    assert "not forgetting" in json.loads(issued(service, c))["claim"]["sentence"]


def test_a_version_without_a_successor_is_said_to_be_withdrawn(service, done, tenant):
    request = a_request(service, tenant)
    replaced(service, request, done.old, None)

    content = json.loads(issued(service, request))

    assert content["versions"][0]["replacing"] is None
    assert any("withdrawn" in sentence for sentence in content["uncovered"])


def test_copies_that_left_are_listed_with_their_recipients(service, done):
    with service.db.begin() as session:
        session.add(
            Export(
                id=ids.new(),
                created_at=clock(session),
                tenant_id=done.request.tenant_id,
                version_id=done.old.id,
                dataset_id=None,
                actor="key:test",
                recipient="shop-search",
            )
        )

    content = json.loads(issued(service, done.request))

    assert [export["recipient"] for export in content["exports"]] == ["shop-search"]
    assert any("1 copy had left" in sentence for sentence in content["uncovered"])


def test_digests_of_a_version_that_was_replaced_since_are_left_out(service, done):
    with service.db.begin() as session:
        session.get_one(Version, done.new.id).state = "retired"

    (version,) = json.loads(issued(service, done.request))["versions"]

    assert version["replacing"]["digests"] is None


def test_what_is_computed_iteratively_is_said_to_be_the_same_on_one_platform_only(
    service, tenant, caller, done
):
    assert "iteratively" not in issued(service, done.request).decode()
    fitted = forgotten(service, tenant, caller, "fetril", {"solver": "svm"})

    content = json.loads(issued(service, fitted.request))

    assert any("iteratively" in sentence for sentence in content["uncovered"])
