"""Versions that are too old: retired by the publication after, and what they stored destroyed."""

import threading

import numpy as np
import pytest
from sqlalchemy import select

from app import ids
from app.errors import ArtifactCorrupt, VersionNotReady
from app.schemas.aliases import AliasPut
from app.services import jobs, scheduler
from app.services.datasets import datasets
from app.services.jobs import Signal
from app.services.models import (
    aliases,
    artifacts,
    centroids,
    models,
    retention,
    snapshots,
    updates,
    versions,
)
from app.services.predictions import serving
from app.tables import Centroid as CentroidRow
from app.tables import Job, Version, VersionClass
from tests.services.learning import a_dataset, a_model, learn, rows, run_next, submit
from workers import runner

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def taught(service, tenant, caller, model, count, method="ncm"):
    """`count` versions, each with a class more; purges are left waiting."""
    made = []
    for at in range(count):
        labels = rows(**{name: 3 for name in (NAMES[:2] if at == 0 else [NAMES[at + 1]])})
        made.append(published(service, caller, model, a_dataset(service, tenant.id, labels, seed=at), method))
    return made


def published(service, caller, model, data, method="ncm", **fields):
    """Submit and run an update whatever else waits, and give the version."""
    job = submit(service, caller, model, [data], method, **fields)
    claimed = jobs.claim(service, ["cpu"], "test")
    assert claimed is not None
    assert claimed.id == job.id
    runner.run(service, claimed, lambda: Signal.CONTINUE)
    with service.db.read() as session:
        done = session.get_one(Job, job.id)
        assert done.state == "succeeded", done.error
        return session.get_one(Version, ids.decode("ver", done.result["version_id"]))


def states(service, model):
    with service.db.read() as session:
        found = session.scalars(select(Version).filter_by(model_id=model.id).order_by(Version.number))
        return [row.state for row in found]


def again(service, version):
    with service.db.read() as session:
        return session.get_one(Version, version.id)


def test_the_newest_and_the_aliased_stay(service, tenant, caller):
    model = a_model(service, caller, keep_versions=2)
    made = taught(service, tenant, caller, model, 2)
    aliases.put(
        service, caller, model.id, "production", AliasPut(version=1, reason="first"), lambda revision: None
    )
    for at in (3, 4):
        labels = rows(**{NAMES[at]: 3})
        made.append(published(service, caller, model, a_dataset(service, tenant.id, labels)))
    assert states(service, model) == ["ready", "retired", "ready", "ready"]


def test_a_purge_destroys_what_a_retired_version_stored_and_keeps_its_rows(service, tenant, caller):
    model = a_model(service, caller, keep_versions=1)
    first, second = taught(service, tenant, caller, model, 2, "analytic")
    assert run_next(service).result == {"versions": 1}
    files = {path.name for path in service.settings.objects_dir.rglob("*") if path.is_file()}
    for id in (first.file_id, first.statistics_file_id, first.key_id):
        assert not any(id.hex in name for name in files)
    assert any(second.statistics_file_id.hex in name for name in files)
    with pytest.raises(ArtifactCorrupt):
        service.vault.key(first.key_id)

    shown = versions.read_one(service, caller.tenant_id, model.id, 1)
    assert (shown.state, shown.digests, shown.metrics) == ("retired", {}, first.metrics)
    assert [entry.count for entry in shown.classes] == [3, 3]
    assert again(service, first).purged_at is not None


def test_centroids_that_others_share_outlive_the_version_that_made_them(service, tenant, caller):
    model = a_model(service, caller, keep_versions=2)
    made = taught(service, tenant, caller, model, 3)
    before = snapshots.load(service, made[2].id).snapshot.centroids
    run_next(service)
    for version in made[1:]:
        found = snapshots.load(service, version.id).snapshot.centroids
        for name, centroid in found.items():
            np.testing.assert_array_equal(centroid.sum, before[name].sum)
    with service.db.read() as session:
        keys = session.scalars(
            select(CentroidRow.key_id)
            .join(VersionClass, VersionClass.centroid_id == CentroidRow.id)
            .where(VersionClass.version_id == made[0].id)
        ).all()
    assert set(keys) == {made[2].key_id}  # the newest that shares them
    assert before.keys() == {"ant", "bee", "cat", "dog"}


def test_the_network_outlives_the_version_that_trained_it(service, tenant, caller):
    network = {"name": "mlp", "params": {"hidden": [8]}}
    model = a_model(service, caller, network=network, keep_versions=1)
    data = a_dataset(service, tenant.id, rows(ant=6, bee=6))
    first = learn(service, caller, model, [data], "supervised", {"epochs": 1, "batch_size": 8})
    weights = snapshots.load(service, first.id).snapshot.weights
    second = published(service, caller, model, a_dataset(service, tenant.id, rows(cat=4)))
    run_next(service)

    assert again(service, first).state == "retired"
    kept = snapshots.load(service, second.id).snapshot.weights
    assert kept.keys() == weights.keys()
    assert all((kept[name] == weights[name]).all() for name in kept)
    with pytest.raises(ArtifactCorrupt):
        service.vault.key(first.key_id)
    third = published(service, caller, model, a_dataset(service, tenant.id, rows(dog=4)))
    assert snapshots.load(service, third.id).snapshot.classes == ("ant", "bee", "cat", "dog")


@pytest.fixture
def retired(service, tenant, caller):
    """A model whose first version is retired and gone."""
    model = a_model(service, caller, keep_versions=1)
    made = taught(service, tenant, caller, model, 2)
    run_next(service)
    return model, made[0]


def test_a_retired_version_is_not_ready_for_anything(service, caller, retired):
    model, first = retired
    uses = (
        lambda: snapshots.load(service, first.id),
        lambda: artifacts.export(service, caller, model.id, 1, None),
        lambda: centroids.of_version(service, caller.tenant_id, model.id, 1, show_all=True),
        lambda: resolve(service, caller, model, 1),
        lambda: aliases.put(
            service, caller, model.id, "old", AliasPut(version=1, reason="back"), lambda revision: None
        ),
    )
    for use in uses:
        with pytest.raises(VersionNotReady):
            use()


def resolve(service, caller, model, number):
    with service.db.read() as session:
        return serving.resolve(session, caller.tenant_id, model.id, None, number)


def test_a_retired_base_is_refused_with_the_newest_that_can_be_used(service, tenant, caller, retired):
    model, _ = retired
    with pytest.raises(VersionNotReady) as error:
        submit(service, caller, model, [a_dataset(service, tenant.id, rows(fox=3))], base=1)
    assert "choose 2" in error.value.detail
    assert error.value.errors[0].pointer == "/base"


@pytest.mark.parametrize("method", ["ncm", "analytic"])
def test_a_purge_that_stops_anywhere_is_finished_by_the_next(service, tenant, caller, monkeypatch, method):
    class Killed(BaseException):
        pass

    model = a_model(service, caller, keep_versions=1)
    made = taught(service, tenant, caller, model, 3, method)
    before = snapshots.load(service, made[2].id).snapshot.centroids
    for step in ("move_centroids", "_close"):
        with monkeypatch.context() as patch:
            patch.setattr(retention, step, lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                retention.purge_retired(service, model.id, lambda _: None)
    assert retention.purge_retired(service, model.id, lambda _: None) == 2
    after = snapshots.load(service, made[2].id).snapshot.centroids
    assert {name: c.sum.tolist() for name, c in after.items()} == {
        name: c.sum.tolist() for name, c in before.items()
    }
    assert retention.purge_retired(service, model.id, lambda _: None) == 0


def test_a_purge_that_failed_is_queued_again(service, tenant, caller):
    model = a_model(service, caller, keep_versions=1)
    taught(service, tenant, caller, model, 2)
    with service.db.begin() as session:
        job = session.scalars(select(Job).filter_by(kind="purge")).one()
        job.state = "failed"
        job.created_at = job.created_at.replace(year=2020)
    assert scheduler.resume_purges(service) == 1
    assert scheduler.resume_purges(service) == 0
    assert run_next(service).result == {"versions": 1}


def test_a_deleted_model_is_purged_after_its_versions_were(service, caller, retired):
    model, _ = retired
    job = models.remove(service, caller, model.id, lambda revision: None)
    with service.db.begin() as session:
        row = session.get_one(Job, job.id)
        row.state, row.created_at = "failed", row.created_at.replace(year=2020)
    assert scheduler.resume_purges(service) == 1


def test_statistics_are_made_of_rows_where_the_version_that_kept_them_is_retired(service, tenant, caller):
    model = a_model(service, caller, keep_versions=1)
    data = [a_dataset(service, tenant.id, rows(**{name: 4, "eel": 4})) for name in ("ant", "bee", "cat")]
    learn(service, caller, model, data[:1], "analytic")
    published(service, caller, model, data[1], "ncm", on_conflict="extend")
    run_next(service)
    third = published(service, caller, model, data[2], "analytic", on_conflict="extend")
    assert states(service, model) == ["retired", "retired", "ready"]

    run_next(service)
    joint = learn(service, caller, a_model(service, caller), data, "analytic")
    assert digest(service, third) == digest(service, joint)


def digest(service, version):
    return service.vault.key(version.key_id).digests["statistics"]


@pytest.mark.parametrize("network", [None, {"name": "mlp", "params": {"hidden": [8]}}])
def test_statistics_stay_while_a_version_that_is_ready_builds_on_them(service, tenant, caller, network):
    settings = {"network": network} if network else {}
    model = a_model(service, caller, keep_versions=1, **settings)
    first, *more = (
        a_dataset(service, tenant.id, rows(**{one: 4 for one in names}))
        for names in (("ant", "bee"), ("cat",), ("dog",), ("eel",))
    )
    if network:
        learn(service, caller, model, [first], "supervised", {"epochs": 1, "batch_size": 8})
        published(service, caller, model, more.pop(), "analytic")
    else:
        learn(service, caller, model, [first], "analytic")
    known = newest(service, model)
    wanted = snapshots.load(service, known.id, statistics=True).snapshot.statistics
    datasets.remove(service, caller, first.id)
    drain(service)
    for data in more[:2]:
        published(service, caller, model, data)
        drain(service)
        kept = again(service, known)
        assert (kept.state, kept.purged_at is None, kept.key_id == known.key_id) == ("retired", False, False)
        assert wanted is not None
        assert snapshots.statistics_of(service, known.id).digest() == wanted.digest()
        assert known.key_id.hex not in names_of_files(service)
    last = a_dataset(service, tenant.id, rows(fox=4))
    published(service, caller, model, last, "analytic")
    drain(service)

    gone = again(service, known)
    assert gone.statistics_file_id is None
    files = names_of_files(service)
    assert not {kept.statistics_file_id.hex, kept.key_id.hex, known.statistics_file_id.hex} & files
    with pytest.raises(ArtifactCorrupt):
        snapshots.statistics_of(service, known.id)
    assert snapshots.load(service, newest(service, model).id).snapshot.classes[-1] == "fox"


def test_what_is_learned_on_kept_statistics_is_what_joint_learning_gives(service, tenant, caller):
    model = a_model(service, caller, keep_versions=1)
    data = [a_dataset(service, tenant.id, rows(**{name: 4, "eel": 4})) for name in ("ant", "bee", "cat")]
    joint = learn(service, caller, a_model(service, caller), data, "analytic")
    learn(service, caller, model, data[:1], "analytic")
    datasets.remove(service, caller, data[0].id)
    drain(service)
    published(service, caller, model, data[1], "ncm", on_conflict="extend")
    drain(service)
    third = published(service, caller, model, data[2], "analytic", on_conflict="extend")
    assert digest(service, third) == digest(service, joint)


def names_of_files(service):
    folders = (service.settings.objects_dir, service.settings.keys_dir)
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}


def drain(service):
    """Run every purge that waits."""
    while claimed := jobs.claim(service, ["io"], "test"):
        runner.run(service, claimed, lambda: Signal.CONTINUE)
        with service.db.read() as session:
            done = session.get_one(Job, claimed.id)
            assert done.state == "succeeded", done.error


def newest(service, model):
    with service.db.read() as session:
        found = select(Version).filter_by(model_id=model.id).order_by(Version.number.desc()).limit(1)
        return session.scalars(found).one()


def test_the_base_of_an_accepted_update_stays_until_that_has_ended(service, tenant, caller):
    model = a_model(service, caller, keep_versions=1)
    taught(service, tenant, caller, model, 1)
    first, second = (a_dataset(service, tenant.id, rows(**{name: 3})) for name in ("cat", "dog"))
    jobs_asked = [submit(service, caller, model, [data], base=1) for data in (first, second)]
    for asked in jobs_asked:
        assert states(service, model)[0] == "ready"
        claimed = jobs.claim(service, ["cpu"], "test")
        assert claimed is not None
        assert claimed.id == asked.id
        runner.run(service, claimed, lambda: Signal.CONTINUE)
    assert states(service, model) == ["retired", "retired", "ready"]
    with service.db.read() as session:
        assert [session.get_one(Job, asked.id).state for asked in jobs_asked] == ["succeeded"] * 2


def test_a_base_that_was_checked_is_not_retired_before_its_update_is_there(
    service, tenant, caller, monkeypatch
):
    model = a_model(service, caller)
    taught(service, tenant, caller, model, 2)
    check = updates.check

    def retire():
        with service.db.begin() as session:
            row = models.get(session, caller.tenant_id, model.id, lock=True)
            row.keep_versions = 1
            retention.retire(session, row, actor="test")

    other = threading.Thread(target=retire)

    def check_and_be_overtaken(*given):
        check(*given)
        other.start()
        other.join(0.3)  # as long as it may take where nothing holds it

    monkeypatch.setattr(updates, "check", check_and_be_overtaken)
    submit(service, caller, model, [a_dataset(service, tenant.id, rows(dog=3))], base=1)
    other.join()
    assert states(service, model) == ["ready", "ready"]


def test_one_purge_waits_at_a_time_and_sees_to_all(service, tenant, caller):
    model = a_model(service, caller, keep_versions=1)
    taught(service, tenant, caller, model, 3)
    with service.db.read() as session:
        assert len(session.scalars(select(Job).filter_by(kind="purge")).all()) == 1
    assert run_next(service).result == {"versions": 2}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("step", ["move_centroids", "_destroy", "_sealed_anew"])
def test_two_purges_at_once_both_succeed(service, tenant, caller, monkeypatch, trained, step):
    if trained:
        model = a_model(service, caller, keep_versions=1, network={"name": "mlp", "params": {"hidden": [8]}})
        data = a_dataset(service, tenant.id, rows(ant=6, bee=6))
        learn(service, caller, model, [data], "supervised", {"epochs": 1, "batch_size": 8})
        published(service, caller, model, a_dataset(service, tenant.id, rows(cat=4)))
    else:
        model = a_model(service, caller, keep_versions=1)
        taught(service, tenant, caller, model, 2)
    real = getattr(retention, step)
    others = []

    def beaten(*given, **more):
        monkeypatch.setattr(retention, step, real)
        others.append(retention.purge_retired(service, model.id, lambda _: None))
        return real(*given, **more)

    monkeypatch.setattr(retention, step, beaten)
    assert retention.purge_retired(service, model.id, lambda _: None) == 1
    assert others == ([1] if trained or step != "_sealed_anew" else [])
    after = newest(service, model)
    found = snapshots.load(service, after.id).snapshot
    assert found.classes == ("ant", "bee", "cat")
    assert retention.purge_retired(service, model.id, lambda _: None) == 0
