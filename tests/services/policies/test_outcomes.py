"""What becomes of versions that a policy made: promoted, or held back and why."""

import pytest
from sqlalchemy import select

from app.db import clock
from app.errors import UnsupportedTask
from app.services.models import aliases as alias_service
from app.services.models import models
from app.services.policies import offers, policies
from app.tables import ApiKey, Decision, Offer, Version
from tests.services.learning import a_dataset, a_model, learn, rows, run_next
from tests.services.policies.following import (
    SPLIT,
    a_policy_model,
    aliases,
    change,
    gated,
    lines,
    named,
    offer,
    offer_again,
    pass_time,
    state_of,
    the_version,
    train_edges,
    updates_of,
    with_policy,
)


def test_moves_the_alias_when_every_gate_holds(service, caller):
    model = gated(service, caller, min_new=0.9, min_old=0.9)
    offer(service, caller, model, rows(cat=4), split=SPLIT)
    run_next(service)
    assert aliases(service, model) == {"production": 2}
    line = lines(service, caller, model)[-1]
    assert (line.event, line.version, line.alias) == ("promoted", 2, "production")
    assert [gate["holds"] for gate in line.gates] == [True, True]


def test_leaves_production_where_a_gate_does_not_hold(service, caller):
    model = gated(service, caller, min_new=0.9)
    offer(service, caller, model, rows(cat=4), split=SPLIT, x=[[0, 0, 1, 0]] * 3 + [[1, 0, 0, 0]])
    done = run_next(service)
    assert done.state == "succeeded"
    assert aliases(service, model) == {"production": 1}
    line = lines(service, caller, model)[-1]
    assert (line.event, line.version, line.reason) == ("held-back", 2, "a gate does not hold")
    assert line.gates == [{"gate": "min_new", "limit": 0.9, "value": 0.0, "holds": False}]


def a_bad_class(service, caller, model):
    """A version that the gate on new classes holds back, and the dataset that it learned."""
    row = offer(service, caller, model, rows(cat=4), split=SPLIT, x=[[0, 0, 1, 0]] * 3 + [[1, 0, 0, 0]])
    run_next(service)
    assert lines(service, caller, model)[-1].event == "held-back"
    return row


def test_gates_what_was_held_back_again_with_what_builds_on_it(service, caller):
    model = gated(service, caller, min_new=0.6)
    policy = {"promote": "if_gates_pass", "alias": "production"}
    with_policy(service, caller, model, **policy, on_conflict="extend")
    sent = [a_bad_class(service, caller, model)]
    sent.append(offer(service, caller, model, rows(dog=4), split=SPLIT, seed=1))
    run_next(service)
    line = lines(service, caller, model)[-1]
    assert (line.event, line.version) == ("held-back", 3)
    assert line.gates == [{"gate": "min_new", "limit": 0.6, "value": 0.5, "holds": False}]

    sent.append(offer(service, caller, model, rows(cat=4), split=[0, 0, 1, 1], seed=2))
    version = the_version(service, run_next(service))
    line = lines(service, caller, model)[-1]
    assert (line.event, line.version) == ("promoted", 4)
    assert line.gates == [{"gate": "min_new", "limit": 0.6, "value": 0.75, "holds": True}]
    assert train_edges(service, version) >= {row.id for row in sent}


def test_goes_on_from_the_aliased_version_once_an_update_was_posted_on_it(service, caller):
    model = gated(service, caller, min_new=0.9)
    bad = a_bad_class(service, caller, model)
    assert learn(service, caller, model, [], base=1).number == 3
    good = offer(service, caller, model, rows(dog=4), split=SPLIT, seed=1)
    version = the_version(service, run_next(service))
    assert aliases(service, model) == {"production": 4}
    assert good.id in train_edges(service, version)
    assert bad.id not in train_edges(service, version)
    policy = {"promote": "if_gates_pass", "alias": "production"}
    with_policy(service, caller, model, **policy, on_conflict="extend")
    offer_again(service, caller, model, bad)  # whose class the model knows, though no version here does
    assert named(updates_of(service, model)[0]) == {bad.id}


def test_measures_forgetting_against_the_version_that_the_alias_names(service, caller):
    model = gated(service, caller, max_forgetting=0.1)
    with service.db.begin() as session:  # the aliased version got half of its old rows right, and still does
        version = session.scalars(select(Version).filter_by(model_id=model.id)).one()
        version.metrics = {**version.metrics, "per_class": {"ant": 0.0, "bee": 0.0}}
    offer(service, caller, model, rows(cat=4), split=SPLIT)
    run_next(service)
    line = lines(service, caller, model)[-1]
    assert line.event == "promoted"
    assert line.gates[0]["value"] == pytest.approx(-1.0)


def test_holds_back_a_version_that_no_gate_applies_to(service, caller):
    model = gated(service, caller, min_new=0.9)
    with_policy(service, caller, model, promote="if_gates_pass", alias="production", on_conflict="extend")
    offer(service, caller, model, rows(ant=4), split=SPLIT, x=[[0, 1, 0, 0]] * 4)
    assert run_next(service).state == "succeeded"
    assert aliases(service, model) == {"production": 1}
    line = lines(service, caller, model)[-1]
    assert (line.event, line.version, line.reason) == ("held-back", 2, "no gate applies to this version")
    assert line.gates == []


def test_refuses_to_promote_a_regression_which_no_gate_measures(service, caller):
    spec = {"kind": "vector", "shape": [4], "target": {"exponent": -8}}
    model = a_model(service, caller, task="regression", input=spec, gates={"min_new": 0.5})
    data = a_dataset(service, caller.tenant_id, [None] * 8, targets=list(range(8)))
    learn(service, caller, model, [data], "ridge_regression", alias="production")
    policy = {"method": {"name": "ridge_regression", "params": {}}, "alias": "production"}
    with pytest.raises(UnsupportedTask) as caught:
        with_policy(service, caller, model, promote="if_gates_pass", **policy)
    assert caught.value.errors[0].pointer == "/update_policy/promote"


@pytest.mark.parametrize("field", ["revoked_at", "expires_at"])
def test_holds_back_when_the_key_that_set_it_ends(service, caller, field):
    model = gated(service, caller, min_new=0.0)
    first = offer(service, caller, model, rows(cat=4), split=SPLIT)
    with service.db.begin() as session:
        setattr(session.get_one(ApiKey, caller.key_id), field, clock(session))
    run_next(service)
    second = offer(service, caller, model, rows(dog=4), split=SPLIT, seed=3)

    assert updates_of(service, model) == []
    assert aliases(service, model) == {"production": 1}
    assert [line.event for line in lines(service, caller, model)] == ["started", "held-back", "held-back"]
    assert "API key" in lines(service, caller, model)[1].reason
    assert state_of(service, model, first) == offers.LEARNED
    assert state_of(service, model, second) == offers.WAITING


def test_promotes_nothing_once_the_policy_was_taken_away(service, caller):
    model = gated(service, caller, min_new=0.0)
    offer(service, caller, model, rows(cat=4), split=SPLIT)
    change(service, caller, model, update_policy=None)
    run_next(service)
    assert aliases(service, model) == {"production": 1}
    assert lines(service, caller, model)[-1].reason == "the update policy was changed meanwhile"


def test_does_not_make_an_alias_that_was_removed(service, caller):
    model = gated(service, caller, min_new=0.0)
    offer(service, caller, model, rows(cat=4), split=SPLIT)
    alias_service.remove(service, caller, model.id, "production", lambda revision: None)
    run_next(service)
    assert aliases(service, model) == {}
    assert lines(service, caller, model)[-1].event == "held-back"
    offer(service, caller, model, rows(dog=4), split=SPLIT, seed=3)
    assert updates_of(service, model) == []
    assert lines(service, caller, model)[-1].code == "not-found"


def test_two_models_with_the_same_name_of_an_alias_move_each_their_own(service, caller):
    one, other = gated(service, caller, min_new=0.0), gated(service, caller, min_new=0.0)
    offer(service, caller, one, rows(cat=4), split=SPLIT)
    run_next(service)
    assert (aliases(service, one), aliases(service, other)) == ({"production": 2}, {"production": 1})


def test_leaves_nothing_of_a_deleted_model_but_ids(service, caller):
    model = a_policy_model(service, caller, min_rows=100)
    offer(service, caller, model, rows(cat=3))
    models.remove(service, caller, model.id, lambda revision: None)
    assert policies.sweep(service) == 0
    assert run_next(service).state == "succeeded"
    with service.db.read() as session:
        assert session.scalars(select(Offer)).all() == []
        left = session.scalars(select(Decision).filter_by(model_id=model.id)).all()
    assert [(line.event, line.reason) for line in left] == [("waited", "")]


def test_one_model_that_cannot_be_looked_at_holds_no_other_up(service, caller, monkeypatch):
    broken, sound = (a_policy_model(service, caller, min_rows=100, max_wait_seconds=60) for _ in range(2))
    for number, model in enumerate((broken, sound)):
        offer(service, caller, model, rows(cat=3), seed=number)
        pass_time(service, model, 61)
    look = policies.decide

    def decide(service, session, model, **given):
        if model.id == broken.id:
            raise RuntimeError("gone")
        return look(service, session, model, **given)

    monkeypatch.setattr(policies, "decide", decide)
    assert policies.sweep(service) == 1
    assert len(updates_of(service, sound)) == 1
