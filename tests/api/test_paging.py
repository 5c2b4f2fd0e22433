"""Lists come in pages that neither repeat nor skip, under tokens that fit one list only."""

from __future__ import annotations

import pytest


@pytest.fixture
def seven(client):
    for number in range(6):  # the admin key is the first
        client.post("/v1/api-keys", json={"name": f"key {number}", "scopes": ["read"]})
    return [key["id"] for key in client.get("/v1/api-keys").json()["items"]]


def test_pages_are_the_list_cut_in_order(client, seven):
    found = []
    address: str | None = "/v1/api-keys?page_size=3"
    while address:
        answer = client.get(address)
        found.append([key["id"] for key in answer.json()["items"]])
        address = answer.links["next"]["url"] if "next" in answer.links else None

    assert found == [seven[:3], seven[3:6], seven[6:]]


def test_an_empty_token_ends_the_list(client, seven):
    assert client.get("/v1/api-keys").json()["next_page_token"] == ""


def test_a_large_page_is_cut_to_the_largest_and_a_negative_one_refused(client):
    assert client.get("/v1/api-keys", params={"page_size": 9999}).status_code == 200
    assert client.get("/v1/api-keys", params={"page_size": -1}).status_code == 400


def test_a_token_fits_neither_another_list_nor_other_filters_nor_another_tenant(client, seven, stranger):
    token = client.get("/v1/audit-events", params={"page_size": 1}).json()["next_page_token"]
    fits = {"page_token": token}

    assert client.get("/v1/audit-events", params=fits).status_code == 200
    for refused in (
        client.get("/v1/api-keys", params=fits),
        client.get("/v1/audit-events", params={**fits, "action": "api_key.created"}),
        client.get("/v1/audit-events", params=fits, headers=stranger),
        client.get("/v1/audit-events", params={"page_token": token[:-2] + "AA"}),
        client.get("/v1/audit-events", params={"page_token": "%"}),
    ):
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid-request")
        assert [e["pointer"] for e in refused.json()["errors"]] == ["page_token"]
