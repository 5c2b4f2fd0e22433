"""Who may call: keys, scopes, tenants."""

from __future__ import annotations

import re
import stat
import threading
import time

import pytest
from sqlalchemy import select, update

from app.db import clock, touch
from app.errors import NameConflict, ValidationFailed
from app.service import open_service
from app.services.callers import access
from app.tables import ApiKey, Tenant
from tests.api.conftest import bearer, both_stacks, caller_of


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": ""},
        {"Authorization": "Basic abc"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer key_x.y"},
        {"Authorization": b"Bearer key_\xff.\xff"},
    ],
)
def test_refuses_a_call_without_a_key(client, header):
    answer = client.get("/v1/jobs", headers=header)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_refuses_a_known_id_with_another_secret(client, admin_token):
    name, _, _ = admin_token.partition(".")

    assert client.get("/v1/jobs", headers=bearer(f"{name}.wrong")).status_code == 401


def test_refuses_a_body_of_a_stranger_before_it_is_read(client):
    answer = client.post("/v1/api-keys", content=b"{", headers={"Authorization": "Bearer nobody"})

    assert answer.status_code == 401


def test_a_key_may_do_what_its_scope_says_and_no_more(client, key_with):
    reader = key_with("read")

    assert client.get("/v1/jobs", headers=reader).status_code == 200
    refused = client.post("/v1/api-keys", json={"name": "x", "scopes": ["read"]}, headers=reader)
    assert (refused.status_code, refused.json()["code"]) == (403, "missing-scope")


def test_the_secret_is_shown_once_and_its_digest_is_kept(client, service):
    made = client.post("/v1/api-keys", json={"name": "a", "scopes": ["read"]}).json()
    secret = made["token"].partition(".")[2]

    assert len(secret) >= 43
    assert secret not in client.get("/v1/api-keys").text
    with service.db.read() as session:
        kept = session.scalars(select(ApiKey.secret_sha256)).all()
    assert access.fingerprint(secret) in kept


def test_an_ended_key_is_refused_at_once(client):
    made = client.post("/v1/api-keys", json={"name": "a", "scopes": ["read"]}).json()
    assert client.get("/v1/jobs", headers=bearer(made["token"])).status_code == 200

    assert client.delete(f"/v1/api-keys/{made['id']}").status_code == 204

    assert client.get("/v1/jobs", headers=bearer(made["token"])).status_code == 401
    assert client.delete(f"/v1/api-keys/{made['id']}").status_code == 204


def test_a_key_that_another_process_ended_is_refused_soon(client, settings):
    made = client.post("/v1/api-keys", json={"name": "a", "scopes": ["read"]}).json()
    other = open_service(settings)
    with other.db.read() as session:
        row = session.scalars(select(ApiKey).where(ApiKey.name == "a")).one()
    access.revoke_key(other, caller_of(row), row.id)
    other.close()

    until = time.monotonic() + 10
    while client.get("/v1/jobs", headers=bearer(made["token"])).status_code != 401:
        assert time.monotonic() < until


def test_an_expired_key_is_refused(client, service):
    body = {"name": "a", "scopes": ["read"], "expires_in_seconds": 3600}
    token = client.post("/v1/api-keys", json=body).json()["token"]
    assert client.get("/v1/jobs", headers=bearer(token)).status_code == 200

    with service.db.begin() as session:
        session.execute(update(ApiKey).where(ApiKey.name == "a").values(expires_at=clock(session)))
        touch(session)

    assert client.get("/v1/jobs", headers=bearer(token)).status_code == 401


def test_the_last_use_of_a_key_is_recorded(client):
    client.get("/v1/jobs")
    client.app.state.keys.write_uses()

    assert client.get("/v1/api-keys").json()["items"][0]["last_used_at"] is not None


def test_a_tenant_sees_only_its_own_keys(client, stranger):
    mine = client.post("/v1/api-keys", json={"name": "a", "scopes": ["read"]}).json()

    theirs = client.get("/v1/api-keys", headers=stranger).json()["items"]

    assert mine["id"] not in [key["id"] for key in theirs]
    assert client.delete(f"/v1/api-keys/{mine['id']}", headers=stranger).status_code == 404


def test_the_first_admin_key_lies_in_the_data_directory_for_its_owner_only(service, admin_token):
    path = service.settings.data_dir / access.ADMIN_KEY_FILE

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"key_[0-9a-z]{26}\.[\w-]{43}", admin_token)


def test_starting_again_changes_nothing(service, admin_token):
    access.bootstrap(service)

    assert (service.settings.data_dir / access.ADMIN_KEY_FILE).read_text().strip() == admin_token
    assert [tenant.name for tenant in access.tenants(service)] == ["default"]


@both_stacks
def test_of_processes_that_start_together_one_makes_the_tenant(settings):
    services = [open_service(settings) for _ in range(4)]
    threads = [threading.Thread(target=access.bootstrap, args=(one,)) for one in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    secret = (settings.data_dir / access.ADMIN_KEY_FILE).read_text().strip().partition(".")[2]
    with services[0].db.read() as session:
        tenant = session.scalars(select(Tenant)).one()
        key = session.scalars(select(ApiKey)).one()
    assert key.secret_sha256 == access.fingerprint(secret)
    assert services[0].vault.key(tenant.id).key is not None
    assert len(list(settings.keys_dir.glob("??/*"))) == 1  # the losers took theirs away
    for one in services:
        one.close()


def test_a_tenants_name_is_taken_once(service):
    access.create_tenant(service, "acme")

    with pytest.raises(NameConflict):
        access.create_tenant(service, "acme")
    with pytest.raises(ValidationFailed):
        access.create_tenant(service, " ")


def test_a_digest_is_the_same_for_the_same_text_and_differs_by_tenant(service):
    mine, theirs = access.tenants(service)[0], access.create_tenant(service, "another")[0]

    composed, decomposed = "Zo\u00eb", "Zoe\u0308 "
    assert access.digest(service, mine.id, composed) == access.digest(service, mine.id, decomposed)
    assert access.digest(service, mine.id, composed) != access.digest(service, theirs.id, composed)
    assert access.digest(service, mine.id, composed) != access.digest(service, mine.id, "zo\u00eb")
