"""One update job, from claim to publication."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError

from app import ids
from app.db import clock
from app.methods.parts.grid import quantise
from app.services import jobs
from app.services.erasure import ledger
from app.services.jobs import Signal
from app.services.jobs import asked as job_wishes
from app.services.models import snapshots, versions
from app.tables import (
    Alias,
    Job,
    LedgerEntry,
    RestrictedRow,
    Version,
    VersionClass,
    VersionDataset,
)
from tests.services.learning import (
    WIDTH,
    a_dataset,
    a_model,
    erase,
    job,
    learn,
    restrict,
    rows,
    run_next,
    submit,
)
from workers import plan as plans
from workers import publishing, runner, update


def test_publishes_the_exact_means_of_new_classes(service, tenant, caller):
    x = np.random.default_rng(3).standard_normal((18, WIDTH)).astype(np.float32)
    labels = rows(ant=6, bee=6, cat=6)
    model = a_model(service, caller)
    version = learn(service, caller, model, [a_dataset(service, tenant.id, labels, x=x)])

    after = snapshots.load(service, version.id).snapshot
    grid, _ = quantise(x, "normalised")
    for name in ("ant", "bee", "cat"):
        mine = grid[np.array(labels) == name].astype(np.int64)
        assert after.centroids[name].count == 6
        np.testing.assert_array_equal(after.centroids[name].sum, mine.sum(axis=0))
    assert version.number == 1
    assert after.classes == ("ant", "bee", "cat")


def test_gives_the_same_digest_for_the_same_rows_in_another_order(service, tenant, caller):
    labels = rows(ant=9, bee=7, cat=5)
    x = np.random.default_rng(1).standard_normal((len(labels), WIDTH))
    order = np.random.default_rng(2).permutation(len(labels))
    digests = []
    for chosen in (np.arange(len(labels)), order):
        data = a_dataset(service, tenant.id, [labels[i] for i in chosen], x=x[chosen])
        version = learn(service, caller, a_model(service, caller), [data])
        digests.append(service.vault.key(version.key_id).digests["weights"])
    assert digests[0] == digests[1]


def test_never_shifts_ids_of_classes(service, tenant, caller):
    model = a_model(service, caller)
    first = learn(service, caller, model, [a_dataset(service, tenant.id, rows(bee=3, dog=3))])
    second = learn(service, caller, model, [a_dataset(service, tenant.id, rows(ant=3, cat=3))])
    before, after = class_ids(service, first), class_ids(service, second)
    assert list(after) == ["ant", "bee", "cat", "dog"]
    assert {name: after[name] for name in before} == before
    assert class_ids(service, first) == before


def test_shares_a_centroid_that_did_not_change(service, tenant, caller):
    model = a_model(service, caller)
    first = learn(service, caller, model, [a_dataset(service, tenant.id, rows(ant=4, bee=4))])
    more = a_dataset(service, tenant.id, rows(bee=2, cat=3), seed=5)
    second = learn(service, caller, model, [more], on_conflict="extend")
    before, after = centroid_ids(service, first), centroid_ids(service, second)
    assert after["ant"] == before["ant"]
    assert after["bee"] != before["bee"]
    counts = {name: z.count for name, z in snapshots.load(service, second.id).snapshot.centroids.items()}
    assert counts == {"ant": 4, "bee": 6, "cat": 3}


def test_records_what_each_dataset_did(service, tenant, caller):
    model = a_model(service, caller)
    labels = rows(ant=4, bee=4)
    first_data = a_dataset(service, tenant.id, labels, split=[0] * 6 + [1] * 2)
    second_data = a_dataset(service, tenant.id, rows(cat=3))
    learn(service, caller, model, [first_data])
    second = learn(service, caller, model, [second_data])
    assert edges(service, second) == {
        (first_data.id, "train"): (6, True),
        (first_data.id, "evaluate"): (2, False),
        (second_data.id, "train"): (3, False),
    }


def test_leaves_restricted_rows_out(service, tenant, caller):
    model = a_model(service, caller)
    data = a_dataset(service, tenant.id, rows(ant=5, bee=5))
    restrict(service, data, 0, 3)
    submit(service, caller, model, [data])
    done = run_next(service)
    version = the_version(service, done)
    counts = {name: z.count for name, z in snapshots.load(service, version.id).snapshot.centroids.items()}
    assert counts == {"ant": 4, "bee": 4}
    assert done.result["left_out"] == 2
    with service.db.read() as session:
        edge = session.scalars(select(VersionDataset).filter_by(version_id=version.id)).one()
    assert edge.left_out == [0, 3]


def test_brings_in_only_the_rows_that_were_left_out(service, tenant, caller):
    model = a_model(service, caller)
    data = a_dataset(service, tenant.id, rows(ant=5, bee=5))
    restrict(service, data, 0, 3)
    learn(service, caller, model, [data])
    with service.db.begin() as session:
        session.execute(delete(RestrictedRow))
    second = learn(service, caller, model, [data], on_conflict="extend")
    counts = {name: z.count for name, z in snapshots.load(service, second.id).snapshot.centroids.items()}
    assert counts == {"ant": 5, "bee": 5}
    assert edges(service, second) == {(data.id, "train"): (10, False)}


def test_starts_again_when_a_row_is_restricted_before_publication(service, tenant, caller, monkeypatch):
    model = a_model(service, caller)
    data = a_dataset(service, tenant.id, rows(ant=5, bee=5))
    submitted = submit(service, caller, model, [data])
    before_publication(monkeypatch, lambda: restrict(service, data, 1))

    again = run_next(service)
    assert (again.state, again.attempt) == ("queued", 0)
    assert versions_of(service, model) == []

    monkeypatch.undo()
    done = run_next(service)
    assert done.id == submitted.id
    assert done.result["left_out"] == 1


def test_starts_again_from_an_untainted_base_when_its_own_is_erased_meanwhile(
    service, tenant, caller, monkeypatch
):
    model = a_model(service, caller)
    data = a_dataset(service, tenant.id, rows(ant=5, bee=5))
    learn(service, caller, model, [data])
    tainted_data = a_dataset(service, tenant.id, rows(cat=4))
    learn(service, caller, model, [tainted_data])
    submit(service, caller, model, [a_dataset(service, tenant.id, rows(dog=4))])
    before_publication(monkeypatch, lambda: erase(service, tenant.id, tainted_data, 2))

    assert run_next(service).state == "queued"
    monkeypatch.undo()
    third = the_version(service, run_next(service))
    with service.db.read() as session:
        parent = session.get_one(Version, third.parent_id)
        assert parent.number == 1
        assert not ledger.tainted(session, [third.id])
    assert third.number == 3


def test_builds_on_the_newest_untainted_version_whatever_an_alias_says(service, tenant, caller):
    model = a_model(service, caller)
    first_data = a_dataset(service, tenant.id, rows(ant=4, bee=4))
    learn(service, caller, model, [first_data], alias="production")
    second = learn(service, caller, model, [a_dataset(service, tenant.id, rows(cat=4))])
    third = learn(service, caller, model, [a_dataset(service, tenant.id, rows(dog=4))])
    assert third.parent_id == second.id


def test_builds_on_the_base_that_is_named(service, tenant, caller):
    model = a_model(service, caller)
    first = learn(service, caller, model, [a_dataset(service, tenant.id, rows(ant=4, bee=4))])
    learn(service, caller, model, [a_dataset(service, tenant.id, rows(cat=4))])
    third = learn(service, caller, model, [a_dataset(service, tenant.id, rows(dog=4))], base=1)
    assert third.parent_id == first.id
    assert list(class_ids(service, third)) == ["ant", "bee", "dog"]


def test_measures_on_rows_marked_eval_and_never_learns_them(service, tenant, caller):
    x = np.repeat(np.eye(WIDTH)[:3], [4, 4, 3], axis=0)
    x[3] = np.eye(WIDTH)[1]  # an ant that looks like a bee
    labels = ["ant"] * 4 + ["bee"] * 4 + ["cat"] * 3
    split = [0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0]
    data = a_dataset(service, tenant.id, labels, x=x, split=split)
    version = learn(service, caller, a_model(service, caller), [data])
    assert version.metrics["rows"] == 3
    assert version.metrics["accuracy"] == pytest.approx(2 / 3)
    assert version.metrics["per_class"] == {"ant": 0.5, "bee": 1.0, "cat": None}
    assert version.metrics["accuracy_old"] is None
    assert version.metrics["confused"][0]["class"] == "ant"
    counts = {name: z.count for name, z in snapshots.load(service, version.id).snapshot.centroids.items()}
    assert counts == {"ant": 2, "bee": 3, "cat": 3}


def test_measures_old_classes_and_forgetting_on_the_ancestors_rows(service, tenant, caller):
    model = a_model(service, caller)
    split = [0, 0, 0, 1, 0, 0, 0, 1]
    first = a_dataset(service, tenant.id, ["ant"] * 4 + ["bee"] * 4, split=split)
    learn(service, caller, model, [first])
    x = np.tile(np.eye(WIDTH)[0], (4, 1))  # the new class sits exactly where ants are
    x[:, 1] = 0.02
    learn_x = a_dataset(service, tenant.id, ["cat"] * 4, x=x, split=[0, 0, 0, 1])
    second = learn(service, caller, model, [learn_x])
    assert second.metrics["rows"] == 3
    assert second.metrics["accuracy_new"] is not None
    assert second.metrics["accuracy_old"] is not None
    earlier = 1.0
    losses = [earlier - second.metrics["per_class"][name] for name in ("ant", "bee")]
    assert second.metrics["forgetting"] == pytest.approx(np.mean(losses))


def test_measures_on_every_row_of_a_named_evaluation_dataset(service, tenant, caller):
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4), split=[0] * 7 + [1])
    judged = a_dataset(service, tenant.id, rows(ant=3, bee=2), seed=9)
    evaluation = ids.encode("dst", judged.id)
    version = learn(service, caller, a_model(service, caller), [data], evaluation=evaluation)
    assert version.metrics["rows"] == 5
    assert edges(service, version)[judged.id, "evaluate"] == (5, False)
    assert (data.id, "evaluate") not in edges(service, version)


def test_moves_the_alias_when_the_gates_hold(service, tenant, caller):
    model = a_model(service, caller, gates={"min_new": 0.5})
    data = a_dataset(service, tenant.id, rows(ant=4, bee=4), split=[0] * 6 + [1] * 2)
    submit(service, caller, model, [data], alias="production")
    done = run_next(service)
    assert done.result["alias"] == "production"
    assert done.result["gates"] == [{"gate": "min_new", "limit": 0.5, "value": 1.0, "holds": True}]
    assert aliases_of(service, model) == {"production": 1}


def test_leaves_the_alias_where_a_gate_does_not_hold(service, tenant, caller):
    model = a_model(service, caller, gates={"min_new": 0.9})
    split = [0, 0, 0, 0, 0, 0, 1, 1]
    x = np.repeat(np.eye(WIDTH)[:2], 4, axis=0)
    x[6] = x[7] = np.eye(WIDTH)[0]  # the bees that it is judged by look like ants
    data = a_dataset(service, tenant.id, ["ant"] * 4 + ["bee"] * 4, x=x, split=split)
    submit(service, caller, model, [data], alias="production")
    done = run_next(service)
    assert done.state == "succeeded"
    assert done.result["alias"] is None
    assert done.result["gates"][0]["holds"] is False
    assert aliases_of(service, model) == {}
    assert [row.state for row in versions_of(service, model)] == ["ready"]


def test_writes_nothing_when_its_lease_moved_on(service, tenant, caller, monkeypatch):
    model = a_model(service, caller)
    submitted = submit(service, caller, model, [a_dataset(service, tenant.id, rows(ant=3, bee=3))])
    saved: list[Any] = []

    def lose_the_lease():
        with service.db.begin() as session:
            session.get_one(Job, submitted.id).lease_epoch += 1

    before_publication(monkeypatch, lose_the_lease, saved)
    run_next(service)
    assert versions_of(service, model) == []
    with pytest.raises(FileNotFoundError):
        service.vault.files.open(saved[0].saved.file_id)
    with pytest.raises(FileNotFoundError):
        service.vault.keys.open(saved[0].key_id)


def away(*_, **__):
    raise OperationalError("COMMIT", {}, Exception("the connection is gone"))


def test_publishes_although_the_database_is_away_for_a_moment(service, tenant, caller, monkeypatch):
    monkeypatch.setattr(publishing, "PAUSES", (0.0, 0.0))
    model = a_model(service, caller)
    submit(service, caller, model, [a_dataset(service, tenant.id, rows(ant=3, bee=3))])
    real, absences = jobs.finish, iter([True, True])
    monkeypatch.setattr(jobs, "finish", lambda *given: away() if next(absences, False) else real(*given))

    done = run_next(service)

    assert (done.state, done.attempt) == ("succeeded", 1)
    (version,) = versions_of(service, model)
    assert snapshots.load(service, version.id).snapshot.classes == ("ant", "bee")


def test_keeps_what_it_published_where_it_did_not_hear_of_the_commit(service, tenant, caller, monkeypatch):
    monkeypatch.setattr(publishing, "PAUSES", (0.0, 0.0))
    model = a_model(service, caller)
    submit(service, caller, model, [a_dataset(service, tenant.id, rows(ant=3, bee=3))])
    real = update._publish

    def unheard(*given):
        real(*given)
        away()

    monkeypatch.setattr(update, "_publish", unheard)

    assert run_next(service).state == "succeeded"
    (version,) = versions_of(service, model)
    assert snapshots.load(service, version.id).snapshot.classes == ("ant", "bee")


def test_records_the_parameters_that_were_used_after_memory_ran_out(service, tenant, caller):
    model = a_model(service, caller, network={"name": "mlp", "params": {"hidden": [8]}})
    data = a_dataset(service, tenant.id, rows(ant=20, bee=20))
    submit(service, caller, model, [data], "supervised", {"epochs": 1, "batch_size": 32})
    claimed = jobs.claim(service, ["cpu"], "test")
    assert claimed is not None
    jobs.fail(service, claimed, jobs.Cause.OUT_OF_MEMORY)

    done = run_next(service)

    assert done.state == "succeeded", done.error
    (version,) = versions_of(service, model)
    assert (version.params["epochs"], version.params["batch_size"]) == (1, 16)


def test_an_entry_that_comes_while_rows_are_chosen_is_newer_than_the_plan(
    service, tenant, caller, monkeypatch
):
    data = a_dataset(service, tenant.id, rows(ant=3, bee=3))
    submit(service, caller, a_model(service, caller), [data])
    claimed = jobs.claim(service, ["cpu"], "test")
    real = ledger.unusable

    def meanwhile(session, datasets, model_id):
        found = real(session, datasets, model_id)
        session.add(
            LedgerEntry(
                tenant_id=tenant.id,
                request_id=ids.new(),
                kind="approve",
                scope="samples",
                actor="test",
                created_at=clock(session),
            )
        )
        session.flush()
        return found

    monkeypatch.setattr(ledger, "unusable", meanwhile)

    assert claimed is not None
    assert plans.make(service, claimed).ledger_sequence == 0


def test_publishes_nothing_when_cancelled_before_publication(service, tenant, caller, monkeypatch):
    model = a_model(service, caller)
    submitted = submit(service, caller, model, [a_dataset(service, tenant.id, rows(ant=3, bee=3))])
    before_publication(monkeypatch, lambda: job_wishes.cancel(service, caller, submitted.id))
    assert run_next(service).state == "cancelled"
    assert versions_of(service, model) == []


def test_stops_where_it_is_told_to(service, tenant, caller):
    model = a_model(service, caller)
    submitted = submit(service, caller, model, [a_dataset(service, tenant.id, rows(ant=3, bee=3))])
    claimed = jobs.claim(service, ["cpu"], "test")
    job_wishes.cancel(service, caller, submitted.id)
    assert claimed is not None
    runner.run(service, claimed, lambda: Signal.CANCEL)
    assert job(service, submitted.id).state == "cancelled"


def test_refuses_a_class_that_another_update_made_meanwhile(service, tenant, caller):
    model = a_model(service, caller)
    learn(service, caller, model, [a_dataset(service, tenant.id, rows(ant=3, bee=3))])
    for seed in (1, 2):
        submit(service, caller, model, [a_dataset(service, tenant.id, rows(cat=3), seed=seed)])
    assert run_next(service).state == "succeeded"
    second = run_next(service)
    assert second.state == "failed"
    assert second.error["cause"] == "invalid-input"
    assert second.error["errors"][0]["code"] == "class-name-conflict"


def test_counts_a_version_once_for_each_finished_job(service, tenant, caller):
    model = a_model(service, caller)
    for name in ("ant", "cat"):
        submit(service, caller, model, [a_dataset(service, tenant.id, rows(**{name: 3, name + "s": 3}))])
    done = [run_next(service), run_next(service)]
    assert [row.result["version"] for row in done] == [1, 2]
    assert jobs.claim(service, ["cpu"], "test") is None
    assert [row.job_id for row in versions_of(service, model)] == [row.id for row in done]


def class_ids(service, version):
    with service.db.read() as session:
        return {entry.name: entry.id for entry in versions.class_map(session, version.id)}


def centroid_ids(service, version):
    by_class = {id: name for name, id in class_ids(service, version).items()}
    with service.db.read() as session:
        found = session.scalars(select(VersionClass).filter_by(version_id=version.id)).all()
    return {by_class[row.class_id]: row.centroid_id for row in found}


def edges(service, version):
    with service.db.read() as session:
        found = session.scalars(select(VersionDataset).filter_by(version_id=version.id)).all()
    return {(row.dataset_id, row.role): (row.rows, row.inherited) for row in found}


def aliases_of(service, model):
    with service.db.read() as session:
        found = session.execute(
            select(Alias.name, Version.number)
            .join(Version, Version.id == Alias.version_id)
            .where(Alias.model_id == model.id)
        )
        return dict(found.all())


def versions_of(service, model):
    with service.db.read() as session:
        return session.scalars(select(Version).filter_by(model_id=model.id).order_by(Version.number)).all()


def the_version(service, done):
    assert done.state == "succeeded", done.error
    with service.db.read() as session:
        return session.get_one(Version, ids.decode("ver", done.result["version_id"]))


def before_publication(monkeypatch, happens, saved=None):
    """Let something happen when the bytes are stored and the facts are not."""
    original = update._save

    def save(*args):
        draft = original(*args)
        if saved is not None:
            saved.append(draft)
        happens()
        return draft

    monkeypatch.setattr(update, "_save", save)
