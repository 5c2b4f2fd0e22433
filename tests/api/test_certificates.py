"""Certificates and exported rows over HTTP, and versions made again from what was exported."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from sqlalchemy import select

from app import ids
from app.proof.reproduce import reproduce
from app.proof.verify import Refused, check, read_keys
from app.service import Caller
from app.services.certificates import keys
from app.tables import AuditEvent, Export
from tests.api.conftest import both_stacks
from tests.services.certificates.forgetting import a_request, forgotten, issued, replaced
from tests.services.learning import a_dataset, a_model, erase, learn, restrict, rows


@pytest.fixture
def caller(tenant):
    return Caller(tenant_id=tenant.id, key_id=ids.new(), scopes=frozenset({"admin"}))


@pytest.fixture
def done(service, tenant, caller):
    return forgotten(service, tenant, caller)


def certificate(client, done, **headers):
    return client.get(
        f"/v1/forget-requests/{ids.encode('fgt', done.request.id)}/certificate", headers=headers
    )


def export(client, dataset, of, **query):
    return client.get(
        f"/v1/datasets/{ids.encode('dst', dataset.id)}/export",
        params={"model": ids.encode("mdl", of.model_id)} | {"version": of.number} | query,
    )


def saved(client, folder, dataset, version):
    answer = export(client, dataset, version)
    assert answer.status_code == 200, answer.text
    path = folder / f"{dataset.id.hex}.{version.number}.npz"
    path.write_bytes(answer.content)
    return path


@both_stacks
def test_a_certificate_is_answered_as_signed_and_checks_with_the_published_keys(client, service, done):
    body = issued(service, done.request)

    answer = certificate(client, done)

    assert (answer.content, answer.headers["content-type"]) == (body, "application/json")
    assert certificate(client, done, **{"If-None-Match": answer.headers["etag"]}).status_code == 304
    published = client.get("/v1/certificate-keys", headers={"Authorization": ""})
    assert check(answer.content, read_keys(published.content))["request"]["id"]
    with service.db.read() as session:
        looks = session.scalars(select(AuditEvent).filter_by(action="certificate.read")).all()
    assert len(looks) == 2


def test_who_may_not_see_forget_requests_sees_no_certificate(client, service, done, key_with, stranger):
    assert certificate(client, done).json()["code"] == "not-found"
    issued(service, done.request)

    assert certificate(client, done, **key_with("read", "train")).status_code == 403
    assert certificate(client, done, **stranger).status_code == 404
    for scope in ("forget:create", "forget:approve"):
        assert certificate(client, done, **key_with(scope)).status_code == 200


class Page(HTMLParser):
    """The names of the tags of a page, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def test_a_certificate_is_a_page_to_print_where_html_is_asked_for(client, service, done):
    issued(service, done.request)

    answer = certificate(client, done, Accept="text/html,application/xhtml+xml,application/json;q=0.9")

    page = Page(answer.text)
    assert answer.headers["content-type"].startswith("text/html")
    assert "ticket 7 <b>" in page.text  # escaped, so that it is text
    assert not {"script", "img", "link", "iframe"} & page.tags
    assert "Level E." in page.text
    assert certificate(client, done, Accept="*/*").headers["content-type"] == "application/json"


def test_what_a_revoked_key_signed_is_refused_with_the_published_list(client, service, done):
    body = issued(service, done.request)
    (key,) = keys.every(service)
    keys.retire(service, key.id)
    assert check(body, read_keys(client.get("/v1/certificate-keys").content))

    keys.revoke(service, key.id)

    with pytest.raises(Refused, match="was revoked at"):
        check(body, read_keys(client.get("/v1/certificate-keys").content))


def test_a_new_key_signs_what_comes_and_the_old_one_stays_to_check_with(service, tenant, done):
    first = issued(service, done.request)
    old = keys.every(service)[0]
    new = keys.renew(service, tenant.id)

    second = issued(service, a_request(service, tenant))

    assert [json.loads(body)["signed_by"]["key"] for body in (first, second)] == [
        ids.encode("sgk", key.id) for key in (old, new)
    ]
    assert not (service.settings.keys_dir / old.id.hex[-2:] / old.id.hex).exists()


@both_stacks
def test_exported_rows_make_the_version_again_on_any_machine(client, service, done, tmp_path):
    content = json.loads(issued(service, done.request))
    path = saved(client, tmp_path, done.dataset, done.new)

    (verdict,) = reproduce(content, tmp_path)
    assert (verdict.outcome, verdict.reason) == ("equal", "")

    with np.load(path) as file:
        arrays = dict(file)
    assert sorted(arrays["position"]) == [p for p in range(18) if p not in (0, 5)]
    assert arrays["classes"].tolist() == ["ant", "bee", "cat"]
    assert arrays["x"].dtype == np.int16
    arrays["x"][3, 1] += 1
    np.savez(path, **arrays)
    assert [one.outcome for one in reproduce(content, tmp_path)] == ["different"]

    path.unlink()
    (verdict,) = reproduce(content, tmp_path)
    assert (verdict.outcome, verdict.reason) == (
        "cannot",
        f"no file holds the rows of {ids.encode('dst', done.dataset.id)}",
    )


@pytest.mark.parametrize("method", ["fetril", "teen"])
def test_a_version_of_several_steps_is_made_again_from_one_file_per_dataset(
    client, service, tenant, caller, tmp_path, method
):
    params = {"solver": "closed_form"} if method == "fetril" else {"shots": 6}
    model = a_model(service, caller)
    sets = [a_dataset(service, tenant.id, rows(ant=7, bee=8), seed=1)]
    old = learn(service, caller, model, sets, method, params)
    sets.append(a_dataset(service, tenant.id, rows(cat=4, dog=7), seed=2))
    new = learn(service, caller, model, sets[1:], method, params)
    request = a_request(service, tenant)
    replaced(service, request, old, new)
    content = json.loads(issued(service, request))
    for dataset in sets:
        saved(client, tmp_path, dataset, new)

    assert [one.outcome for one in reproduce(content, tmp_path)] == ["equal"]

    steps = {int(step) for path in tmp_path.glob("*.npz") for step in np.load(path)["step"]}
    assert steps == {1, 2}


def test_that_rows_left_is_written_down_and_stands_in_the_certificate_of_their_erasure(
    client, service, tenant, done
):
    assert export(client, done.dataset, done.new, recipient="auditor").status_code == 200

    with service.db.read() as session:
        (row,) = session.scalars(select(Export))
    assert (row.dataset_id, row.version_id, row.recipient) == (done.dataset.id, done.new.id, "auditor")
    later = a_request(service, tenant)
    replaced(service, later, done.new, None)
    assert [one["recipient"] for one in json.loads(issued(service, later))["exports"]] == ["auditor"]


def test_rows_of_a_version_that_may_not_leave_do_not(client, service, tenant, done, key_with):
    other = a_dataset(service, tenant.id, rows(ant=2, bee=2))
    assert code(export(client, done.dataset, done.old)) == (409, "version-tainted")  # it was replaced
    assert code(export(client, other, done.new)) == (404, "not-found")
    assert code(export(client, done.dataset, done.new, version=99)) == (404, "not-found")
    path = export(client, done.dataset, done.new).request.url
    assert client.get(str(path), headers=key_with("read", "train")).status_code == 403

    restrict(service, done.dataset, 1)
    assert code(export(client, done.dataset, done.new)) == (409, "subject-restricted")
    erase(service, tenant.id, done.dataset, 1)
    assert code(export(client, done.dataset, done.new)) == (409, "version-tainted")


def code(answer):
    return answer.status_code, answer.json()["code"]
