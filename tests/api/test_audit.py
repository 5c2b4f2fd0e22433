"""The audit chain: every change is in it, and no link can be altered or taken out unseen."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import delete, select, update

from app.services.callers import access, audit
from app.tables import AuditEvent
from tests.api.conftest import both_stacks


def test_a_change_is_in_the_chain_with_actor_and_ids_only(client):
    made = client.post("/v1/api-keys", json={"name": "a person's name", "scopes": ["read"]}).json()

    events = client.get("/v1/audit-events", params={"action": "api_key.created"}).json()["items"]

    assert made["id"].startswith("key_")
    assert events[-1]["actor"].startswith("key:")
    assert set(events[-1]["resources"]) == {"api_key"}
    assert "a person's name" not in client.get("/v1/audit-events").text


def test_an_untouched_chain_is_intact(client):
    for _ in range(3):
        client.post("/v1/api-keys", json={"name": "a", "scopes": ["read"]})

    verdict = client.get("/v1/audit-events/verify").json()

    assert verdict["intact"] is True
    assert verdict["events"] == 5


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (update(AuditEvent).values(actor="nobody"), 2),
        (update(AuditEvent).values(resources={}), 2),
        (delete(AuditEvent), 3),  # the one behind it no longer follows
    ],
    ids=["actor altered", "ids altered", "removed"],
)
def test_the_first_broken_link_is_named(client, service, change, first):
    for _ in range(3):
        client.post("/v1/api-keys", json={"name": "a", "scopes": ["read"]})
    with service.db.begin() as session:
        sequences = session.scalars(select(AuditEvent.sequence).order_by(AuditEvent.sequence)).all()
        session.execute(change.where(AuditEvent.sequence == sequences[2]))

    verdict = client.get("/v1/audit-events/verify").json()

    assert verdict["intact"] is False
    assert verdict["broken_at"] == sequences[first]
    assert verdict["events"] == 2


@both_stacks
def test_parallel_changes_make_one_line(service):
    def make(names):
        for name in names:
            access.create_tenant(service, name)

    lists = [[f"tenant {i}-{j}" for j in range(5)] for i in range(4)]
    threads = [threading.Thread(target=make, args=(names,)) for names in lists]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    verdict = audit.verify(service)

    assert verdict.broken_at is None
    assert verdict.events == 2 + 2 * 20


def test_a_change_that_is_rolled_back_leaves_no_link(service):
    before = audit.verify(service).events

    def refused():
        with service.db.begin() as session:
            audit.record(session, tenant_id=None, actor="a", action="b", resources={})
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        refused()

    assert audit.verify(service).events == before


def test_a_tenant_sees_only_its_own_events(client, stranger):
    theirs = client.get("/v1/audit-events", headers=stranger).json()["items"]
    mine = client.get("/v1/audit-events").json()["items"]

    assert {event["sequence"] for event in theirs} & {event["sequence"] for event in mine} == set()
    assert len(theirs) == 2
