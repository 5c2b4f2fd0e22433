"""Aliases: who may move them where, and what was live when."""

from dataclasses import replace

import pytest
from sqlalchemy import select

from app import ids
from app.errors import (
    AliasProtected,
    NotFound,
    PreconditionFailed,
    SubjectRestricted,
    VersionNotReady,
    VersionTainted,
)
from app.schemas.aliases import AliasPut
from app.services.models import aliases
from app.tables import Version
from tests.services.learning import a_dataset, a_model, erase, learn, restrict, rows


def anything(_):
    """An If-Match that always holds."""


@pytest.fixture
def data(service, tenant):
    return [
        a_dataset(service, tenant.id, rows(ant=3, bee=3)),
        a_dataset(service, tenant.id, rows(cat=3)),
        a_dataset(service, tenant.id, rows(dog=3)),
    ]


@pytest.fixture
def model(service, caller, data):
    """A model with versions 1 and 2."""
    created = a_model(service, caller)
    learn(service, caller, created, data[:1])
    learn(service, caller, created, data[1:2])
    return created


def put(service, caller, model, version, name="production", reason="test", check=anything, **more):
    body = AliasPut(version=version, reason=reason, **more)
    return aliases.put(service, caller, model.id, name, body, check)


def named(service, caller, model, name="production"):
    return aliases.read(service, caller.tenant_id, model.id, name).version


def test_moves_and_counts_its_revisions(service, caller, model):
    assert put(service, caller, model, 1).revision == 1
    assert put(service, caller, model, 2).revision == 2
    assert named(service, caller, model) == 2


def test_asks_the_check_about_the_revision_that_is_there(service, caller, model):
    asked: list[int | None] = []
    put(service, caller, model, 1, check=asked.append)
    put(service, caller, model, 2, check=asked.append)
    assert asked == [None, 1]


def test_changes_nothing_when_the_check_refuses(service, caller, model):
    put(service, caller, model, 1)

    def refuse(_):
        raise PreconditionFailed("no")

    with pytest.raises(PreconditionFailed):
        put(service, caller, model, 2, check=refuse)
    assert named(service, caller, model) == 1


def test_computes_latest_from_what_is_untainted(service, tenant, caller, model, data):
    assert named(service, caller, model, "latest") == 2
    erase(service, tenant.id, data[1], 0)
    assert named(service, caller, model, "latest") == 1


def test_keeps_every_move(service, caller, model):
    put(service, caller, model, 1, reason="first")
    put(service, caller, model, 2, reason="better")
    aliases.remove(service, caller, model.id, "production", anything)
    moves = aliases.moves(service, caller.tenant_id, model.id, "production", None)
    assert [(move.version, move.reason) for move in moves] == [(None, "removed"), (2, "better"), (1, "first")]
    with pytest.raises(NotFound):
        named(service, caller, model)


def test_answers_what_was_live_at_an_instant(service, caller, model):
    put(service, caller, model, 1)
    put(service, caller, model, 2)
    second, first = aliases.moves(service, caller.tenant_id, model.id, "production", None)
    for at, version in ((first.created_at, 1), (second.created_at, 2)):
        (found,) = aliases.moves(service, caller.tenant_id, model.id, "production", at)
        assert found.version == version
    before = first.created_at.replace(year=first.created_at.year - 1)
    with pytest.raises(NotFound):
        aliases.moves(service, caller.tenant_id, model.id, "production", before)


def test_rolls_back_to_the_version_before(service, caller, model):
    put(service, caller, model, 1)
    put(service, caller, model, 2)
    back = aliases.rollback(service, caller, model.id, "production", "worse", anything)
    assert (back.version, back.revision) == (1, 3)


def test_has_nothing_to_roll_back_to_at_first(service, caller, model):
    put(service, caller, model, 1)
    with pytest.raises(VersionNotReady):
        aliases.rollback(service, caller, model.id, "production", "worse", anything)


def retire(service, model, *numbers):
    with service.db.begin() as session:
        mine = (Version.model_id == model.id, Version.number.in_(numbers))
        for version in session.scalars(select(Version).where(*mine)):
            version.state = "retired"


def test_names_what_is_possible_where_the_version_before_is_retired(service, caller, model, data):
    learn(service, caller, model, data[2:])
    put(service, caller, model, 1)
    put(service, caller, model, 3)
    retire(service, model, 1)
    with pytest.raises(
        VersionNotReady, match=r"version 1 before, which is retired.* can be moved to 2"
    ) as no:
        aliases.rollback(service, caller, model.id, "production", "worse", anything)
    assert [path.rpartition("/")[2] for path in no.value.related] == ["2"]
    assert named(service, caller, model) == 3

    retire(service, model, 2)
    with pytest.raises(VersionNotReady, match="no other version can be used"):
        aliases.rollback(service, caller, model.id, "production", "worse", anything)


def test_names_no_version_that_the_alias_may_not_go_back_to(service, tenant, caller, model, data):
    learn(service, caller, model, data[2:], base=1)
    put(service, caller, model, 1)
    put(service, caller, model, 3)
    retire(service, model, 1)
    erase(service, tenant.id, data[1], 0)
    with pytest.raises(VersionNotReady, match="no other version can be used"):
        aliases.rollback(service, caller, model.id, "production", "worse", anything)


def test_refuses_a_tainted_version_and_names_the_first_allowed(service, tenant, caller, model, data):
    put(service, caller, model, 1)
    erase(service, tenant.id, data[1], 0)
    with pytest.raises(VersionTainted, match="choose 1") as refused:
        put(service, caller, model, 2)
    assert refused.value.errors[0].pointer == "/version"
    assert refused.value.related[0].endswith("/versions/1")


def test_refuses_to_roll_back_to_a_tainted_version(service, tenant, caller, model, data):
    put(service, caller, model, 2)
    put(service, caller, model, 1)
    erase(service, tenant.id, data[1], 0)
    with pytest.raises(VersionTainted):
        aliases.rollback(service, caller, model.id, "production", "worse", anything)
    assert named(service, caller, model) == 1


def test_refuses_a_version_that_used_restricted_rows_and_stays_where_it_is(service, caller, model, data):
    put(service, caller, model, 2)
    request_id = restrict(service, data[1], 0)
    assert named(service, caller, model) == 2
    put(service, caller, model, 1)
    with pytest.raises(SubjectRestricted, match=ids.encode("fgt", request_id)) as refused:
        put(service, caller, model, 2)
    assert refused.value.related == (ids.forget_path(request_id),)


def test_refuses_a_version_that_is_retired(service, caller, model):
    retire(service, model, 1)
    with pytest.raises(VersionNotReady):
        put(service, caller, model, 1)


def test_lets_only_promoters_move_a_protected_alias(service, caller, model):
    trainer = replace(caller, scopes=frozenset({"train"}))
    promoter = replace(caller, scopes=frozenset({"train", "promote"}))
    put(service, promoter, model, 1, protected=True)
    with pytest.raises(AliasProtected):
        put(service, trainer, model, 2)
    with pytest.raises(AliasProtected):
        aliases.rollback(service, trainer, model.id, "production", "worse", anything)
    with pytest.raises(AliasProtected):
        aliases.remove(service, trainer, model.id, "production", anything)
    assert put(service, promoter, model, 2).protected is True


def test_moves_a_protected_alias_for_a_job_of_a_promoter_only(service, caller, model, data, tenant):
    promoter = replace(caller, scopes=frozenset({"train", "promote"}))
    put(service, promoter, model, 1, protected=True)
    learn(service, promoter, model, data[2:], alias="production")
    assert named(service, caller, model) == 3
    trainer = replace(caller, scopes=frozenset({"train"}))
    more = a_dataset(service, tenant.id, rows(elk=3))
    with pytest.raises(AliasProtected):
        learn(service, trainer, model, [more], alias="production")
