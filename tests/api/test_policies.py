"""Update policies over HTTP: what may be said, what is refused with which field, and the history."""

import pytest

from app import ids
from app.api.problems import codes
from tests.api.conftest import both_stacks
from tests.api.sending import npz, send, traces
from tests.api.teaching import a_model, create, teach
from tests.services.learning import rows, run_next

NCM = {"name": "ncm"}
POLICY = {"when": "on_dataset", "method": NCM}
PROMOTING = {**POLICY, "promote": "if_gates_pass", "alias": "production"}


def put(client, model, policy, headers=None, **fields):
    path = f"/v1/models/{model['id']}"
    sent = {"If-Match": "*", **(headers or {})}
    return client.patch(path, json={"update_policy": policy, **fields}, headers=sent)


def refused(answer, code, pointer):
    body = answer.json()
    assert (answer.status_code, body["code"]) == (codes()[code].status, code), answer.text
    assert body["errors"][0]["pointer"] == pointer, answer.text


def history(client, model, **query):
    answer = client.get(f"/v1/models/{model['id']}/history", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send_for(client, model, labels=None, x=None, headers=None, **query):
    labels = labels or rows(cat=4)
    x = x or [[0.0, 0.0, 1.0, i / 10] for i in range(len(labels))]
    return send(client, npz(x=x, label=labels), "npz", headers=headers, model=model["id"], **query)


def promoted(client, service, **fields):
    """A model with an alias at version 1 and a gate."""
    model = a_model(client, gates={"min_new": 0.5}, **fields)
    teach(client, service, model, rows(ant=4, bee=4), alias=None)
    answer = client.put(
        f"/v1/models/{model['id']}/aliases/production", json={"version": 1, "reason": "first"}
    )
    assert answer.status_code == 200, answer.text
    return model


@both_stacks
def test_learns_a_dataset_that_names_it_and_says_so(client, service):
    model = promoted(client, service)
    assert put(client, model, PROMOTING).status_code == 200
    sent = send_for(client, model)
    assert sent.status_code == 201
    done = run_next(service)
    assert done.state == "succeeded", done.error

    lines = history(client, model)["items"]
    assert [line["event"] for line in lines] == ["alias-moved", "started", "held-back"]
    started, held = lines[1:]
    assert started["datasets"] == [sent.json()["id"]]
    assert started["job"] == held["job"] == ids.encode("job", done.id)
    assert (held["version"], held["alias"]) == (2, "production")
    assert held["gates"] == [{"gate": "min_new", "limit": 0.5, "value": None, "holds": False}]
    alias = client.get(f"/v1/models/{model['id']}/aliases/production").json()
    assert alias["version"] == 1


def test_shows_the_policy_with_the_key_that_it_acts_as(client):
    model = a_model(client)
    assert model["update_policy"] is None
    shown = put(client, model, POLICY).json()["update_policy"]
    assert shown["method"] == {"name": "ncm", "params": {"metric": "cosine"}}
    assert (shown["when"], shown["promote"], shown["alias"]) == ("on_dataset", "never", None)
    assert shown["key"].startswith("key_")
    path = f"/v1/models/{model['id']}"
    assert client.get(path).json()["update_policy"] == shown
    kept = client.patch(path, json={"min_centroid_rows": 2}, headers={"If-Match": "*"}).json()
    assert kept["update_policy"] == shown
    assert put(client, model, None).json()["update_policy"] is None


def test_takes_a_policy_with_a_new_model(client):
    made = create(client, update_policy={**POLICY, "min_rows": 9})
    assert made.status_code == 201
    assert made.json()["update_policy"]["min_rows"] == 9


AT = "/update_policy"


@pytest.mark.parametrize(
    ("policy", "pointer"),
    [
        ({"when": "always"}, f"{AT}/when"),
        ({"method": NCM}, f"{AT}/when"),
        ({**POLICY, "min_row": 3}, f"{AT}/min_row"),
        ({**POLICY, "min_rows": 0}, f"{AT}/min_rows"),
        ({**POLICY, "max_wait_seconds": 0}, f"{AT}/max_wait_seconds"),
        ({**POLICY, "method": {"name": "magic"}}, f"{AT}/method"),
        ({**POLICY, "method": {"name": "ncm", "params": {"metrics": 1}}}, f"{AT}/method/params/metrics"),
        ({**POLICY, "promote": "always"}, f"{AT}/promote"),
        ({**POLICY, "promote": "if_gates_pass"}, f"{AT}/alias"),
        ({**POLICY, "alias": "production"}, f"{AT}/alias"),
        ({**POLICY, "alias": "latest", "promote": "if_gates_pass"}, f"{AT}/alias"),
        ({"when": "on_dataset"}, f"{AT}/method"),
        ({"when": "schedule", "method": NCM}, f"{AT}/max_wait_seconds"),
        ({"when": "schedule", "method": NCM, "max_wait_seconds": 60, "min_rows": 2}, f"{AT}/min_rows"),
        ({"when": "manual", "method": NCM}, f"{AT}/method"),
        ({"when": "manual", "min_rows": 1}, f"{AT}/min_rows"),
    ],
)
def test_refuses_what_it_cannot_honour(client, policy, pointer):
    model = a_model(client)
    refused(put(client, model, policy), "validation-failed", pointer)
    assert client.get(f"/v1/models/{model['id']}").json() == model


def test_refuses_a_method_that_cannot_go_on_from_a_version(client):
    network = {"name": "mlp", "params": {"hidden": [8]}}
    model = a_model(client, network=network)
    policy = {**POLICY, "method": {"name": "supervised"}}
    refused(put(client, model, policy), "missing-data", f"{AT}/method/name")
    refused(
        create(client, name="other", network=network, update_policy=policy),
        "missing-data",
        f"{AT}/method/name",
    )


def test_refuses_to_choose_parameters_on_no_evaluation_dataset(client):
    policy = {**POLICY, "method": {"name": "teen", "params": {"choose": True}}}
    model = a_model(client)
    refused(put(client, model, policy), "validation-failed", "/evaluation")
    refused(create(client, name="other", update_policy=policy), "validation-failed", "/evaluation")
    given = {"name": "teen", "params": {"choose": False}}
    assert put(client, model, {**policy, "method": given}).status_code == 200

    judge = send(client, npz(x=[[0.0, 0, 1, 0]], label=["cat"]), "npz").json()["id"]
    assert put(client, model, policy, evaluation=judge).status_code == 200
    path = f"/v1/models/{model['id']}"
    refused(
        client.patch(path, json={"evaluation": None}, headers={"If-Match": "*"}),
        "validation-failed",
        "/evaluation",
    )


@pytest.mark.parametrize("method", ["lda", "analytic", "naive_bayes"])
def test_refuses_a_head_that_would_not_fit_the_memory(client, method):
    wide = {"kind": "vector", "shape": [24_000]}
    policy = {**POLICY, "method": {"name": method}}
    model = a_model(client, input=wide)
    refused(put(client, model, policy), "validation-failed", f"{AT}/method/name")
    made = create(client, name="other", input=wide, update_policy=policy)
    refused(made, "validation-failed", f"{AT}/method/name")
    assert put(client, model, POLICY).status_code == 200


def test_refuses_an_alias_that_is_not_there(client, service):
    model = promoted(client, service)
    refused(put(client, model, {**PROMOTING, "alias": "staging"}), "not-found", f"{AT}/alias")
    refused(create(client, gates={"min_new": 0.5}, update_policy=PROMOTING), "not-found", f"{AT}/alias")
    other = a_model(client, gates={"min_new": 0.5})  # the alias of another model is none of this one's
    refused(put(client, other, PROMOTING), "not-found", f"{AT}/alias")


def test_moves_a_protected_alias_only_for_scope_promote(client, service, key_with):
    model = promoted(client, service)
    path = f"/v1/models/{model['id']}/aliases/production"
    body = {"version": 1, "reason": "guard it", "protected": True}
    assert client.put(path, json=body, headers={"If-Match": "*"}).status_code == 200

    trainer = key_with("read", "train")
    refused(put(client, model, PROMOTING, headers=trainer), "alias-protected", f"{AT}/alias")
    promoter = key_with("read", "train", "promote")
    assert put(client, model, PROMOTING, headers=promoter).status_code == 200


def test_refuses_to_promote_what_no_gate_measures(client, service):
    model = a_model(client)
    teach(client, service, model, rows(ant=4, bee=4), alias="production")
    refused(put(client, model, PROMOTING), "validation-failed", "/gates")
    both = put(client, model, PROMOTING, gates={"min_old": 0.5})
    assert both.status_code == 200
    path = f"/v1/models/{model['id']}"
    refused(client.patch(path, json={"gates": {}}, headers={"If-Match": "*"}), "validation-failed", "/gates")


def test_refuses_to_measure_by_what_it_learns(client):
    model = a_model(client)
    put(client, model, {**POLICY, "min_rows": 100})
    sent = send_for(client, model).json()["id"]
    path = f"/v1/models/{model['id']}"
    refused(client.patch(path, json={"evaluation": sent}, headers={"If-Match": "*"}), "in-use", "/evaluation")


def test_refuses_to_learn_what_measures_it(client, service):
    judge = send(client, npz(x=[[0.0, 0, 1, 0]], label=["cat"]), "npz").json()["id"]
    model = a_model(client, evaluation=judge)
    again = send(client, npz(x=[[0.0, 0, 1, 0]], label=["cat"]), "npz", model=model["id"])
    refused(again, "validation-failed", "model")


def test_needs_scope_train_to_send_for_a_model(client, key_with):
    model = a_model(client)
    answer = send_for(client, model, headers=key_with("ingest"))
    assert (answer.status_code, answer.json()["code"]) == (403, "missing-scope")
    assert send_for(client, model, headers=key_with("ingest", "train")).status_code == 201


def test_stores_nothing_for_a_model_that_is_not_there(client, service, stranger):
    model = a_model(client)
    before = traces(service)
    calls = [
        send_for(client, model, headers=stranger),
        send_for(client, {"id": ids.encode("mdl", ids.new())}),
        send_for(client, {"id": "mdl_x"}),
    ]
    assert [answer.status_code for answer in calls] == [404, 404, 422]
    assert traces(service) == before


def test_stores_nothing_that_the_model_cannot_read(client, service):
    model = a_model(client)
    before = traces(service)
    wide = send_for(client, model, labels=["cat", "dog"], x=[[1.0, 2.0]] * 2)
    refused(wide, "dimension-mismatch", "model")
    bare = send(client, npz(x=[[0.0, 0, 1, 0]]), "npz", model=model["id"])
    refused(bare, "validation-failed", "model")
    assert traces(service) == before


def test_offers_the_bytes_of_a_dataset_that_is_there(client):
    model = a_model(client)
    body = npz(x=[[0.0, 0, 1, 0], [1, 0, 0, 0]], label=["cat", "ant"])
    first = send(client, body, "npz")
    again = send(client, body, "npz", model=model["id"])
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert [line["event"] for line in history(client, model)["items"]] == ["waited"]


def test_offers_once_for_one_idempotency_key(client):
    model = a_model(client)
    body = npz(x=[[0.0, 0, 1, 0], [1, 0, 0, 0]], label=["cat", "ant"])
    answers = [send(client, body, "npz", key="same", model=model["id"]) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert len(history(client, model)["items"]) == 1


def test_pages_through_decisions_and_moves_in_the_order_of_time(client, service):
    model = a_model(client)
    for number in range(3):
        send_for(client, model, x=[[0.0, 0, 1, number]] * 4)
    teach(client, service, model, rows(ant=4, bee=4), alias="production")
    send_for(client, model, x=[[0.0, 0, 1, 9]] * 4)

    whole = history(client, model)
    assert [line["event"] for line in whole["items"]] == ["waited"] * 3 + ["alias-moved", "waited"]
    paged, token = [], ""
    while True:
        page = history(client, model, page_size=2, **({"page_token": token} if token else {}))
        assert len(page["items"]) <= 2
        paged += page["items"]
        token = page["next_page_token"]
        if not token:
            break
    assert paged == whole["items"]


def test_shows_one_kind_of_line_where_that_is_asked_for(client, service):
    model = a_model(client)
    send_for(client, model)
    teach(client, service, model, rows(ant=4, bee=4), alias="production")
    client.delete(f"/v1/models/{model['id']}/aliases/production", headers={"If-Match": "*"})
    for event in ("waited", "alias-moved", "alias-removed"):
        (line,) = history(client, model, event=event)["items"]
        assert line["event"] == event
    assert history(client, model, event="started")["items"] == []
    refused(client.get(f"/v1/models/{model['id']}/history?event=slept"), "validation-failed", "event")


def test_takes_no_token_of_another_models_history(client):
    one, other = a_model(client), a_model(client)
    for number in range(2):
        send_for(client, one, x=[[0.0, 0, 1, number]] * 4)
    token = history(client, one, page_size=1)["next_page_token"]
    answer = client.get(f"/v1/models/{other['id']}/history", params={"page_token": token})
    assert answer.status_code == 400
