"""What a forget job does where subtracting is not all: steps and networks learned again, evaluation rows,
classes, versions without rows of their own, and those of which nothing is left."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save as dump

from app import ids
from app.errors import NotFound, VersionTainted
from app.schemas.aliases import AliasPut
from app.services.erasure import ledger
from app.services.models import aliases, snapshots
from app.services.predictions import serving
from app.tables import (
    Alias,
    AliasMove,
    Dataset,
    FeatureMap,
    Job,
    ModelClass,
    Shard,
    Version,
    VersionDataset,
)
from tests.services.forgetting import (
    approved,
    as_it_is,
    forget,
    forget_class,
    items_of,
    replacement_of,
    request_of,
)
from tests.services.learning import a_dataset, a_model, learn, restrict, rows, run_next
from tests.services.test_shards import rewrite
from tests.workers.test_exact_heads import an_exact_model, digests, many, reference, sent, uses
from tests.workers.test_retention import published

LABELS, X = many()
MLP = {"name": "mlp", "params": {"hidden": [8]}}
TRAINED = {"epochs": 2, "batch_size": 8}


@pytest.fixture
def stack():
    return "embedded"


def weights(service, version):
    return service.vault.key(version.key_id).digests["weights"]


def steps(service, tenant, caller, parts, methods, gone=(), **model):
    """A model that learned the parts one after another, without the rows in `gone`; versions and datasets."""
    found = an_exact_model(service, caller, **model)
    data = [sent(service, tenant, LABELS, X, [i for i in part if i not in gone]) for part in parts]
    made = [
        learn(service, caller, found, [one], method, params, on_conflict="extend")
        for one, (method, params) in zip(data, methods, strict=True)
    ]
    return found, made, data


BY_CLASS = [
    [i for i, name in enumerate(LABELS) if name in names] for names in (("ant", "bee"), ("cat",), ("dog",))
]


@pytest.mark.parametrize("solver", ["closed_form", "svm"])
def test_steps_of_fetril_are_learned_again_from_the_first_affected_one(service, tenant, caller, solver):
    methods = [("fetril", {"solver": solver})] * 3
    gone = {BY_CLASS[1][2]}
    _, wanted, _ = steps(service, tenant, caller, BY_CLASS, methods, gone)
    _, old, data = steps(service, tenant, caller, BY_CLASS, methods)

    request, job = forget(service, tenant, data[1], 2)

    assert job.state == "succeeded", job.error
    assert replacement_of(service, old[0]) is None
    for before, expected in zip(old[1:], wanted[1:], strict=True):
        new = replacement_of(service, before)
        assert weights(service, new) == weights(service, expected)
        assert items_of(service, request)[before.id].detail["way"] == "replay"
        assert items_of(service, request)[before.id].detail["checks"]["identity"] is True


def test_a_step_whose_rows_all_go_is_nothing_and_what_builds_on_it_goes_on(service, tenant, caller):
    methods = [("ncm", {}), ("fetril", {"solver": "closed_form"}), ("ncm", {})]
    _, wanted, _ = steps(service, tenant, caller, [BY_CLASS[0], BY_CLASS[2]], [methods[0], methods[2]])
    model, old, data = steps(service, tenant, caller, BY_CLASS, methods)
    aliases.put(service, caller, model.id, "live", AliasPut(version=2, reason="now"), lambda _: None)

    request, job = forget(service, tenant, data[1], *range(len(BY_CLASS[1])))

    assert job.state == "succeeded", job.error
    assert replacement_of(service, old[1]) is None
    assert as_it_is(service, old[1]).state == "retired"
    assert items_of(service, request)[old[1].id].detail["replacement"] is None
    assert weights(service, replacement_of(service, old[2])) == weights(service, wanted[1])
    with service.db.read() as session:
        assert session.query(Alias).filter_by(model_id=model.id).one_or_none() is None
        last = session.query(AliasMove).filter_by(model_id=model.id).order_by(AliasMove.id.desc()).first()
        assert last.version_id is None
        assert "suspended" in last.reason
        assert ids.encode("fgt", request.id) in last.reason


def test_an_alias_that_it_suspended_and_a_rollback_to_what_it_withdrew_say_what_to_do(
    service, tenant, caller
):
    methods = [("ncm", {}), ("fetril", {"solver": "closed_form"})]
    model, _, data = steps(service, tenant, caller, BY_CLASS[:2], methods)
    for name, number in (("live", 2), ("back", 2), ("back", 1)):
        aliases.put(service, caller, model.id, name, AliasPut(version=number, reason="x"), lambda _: None)
    request, _ = forget(service, tenant, data[1], *range(len(BY_CLASS[1])))
    because = f"suspended .forget {ids.encode('fgt', request.id)}: nothing usable is left of version 2.; "

    with service.db.read() as session:
        with pytest.raises(VersionTainted, match=f"'live' is {because}move it to 1") as refused:
            serving.resolve(session, tenant.id, model.id, "live", None)
        with pytest.raises(NotFound):
            serving.resolve(session, tenant.id, model.id, "never", None)
    assert [path.rpartition("/")[2] for path in refused.value.related] == ["1"]
    with pytest.raises(VersionTainted, match=f"'live' is {because}move it to 1"):
        aliases.rollback(service, caller, model.id, "live", "worse", lambda _: None)
    with pytest.raises(VersionTainted, match=r"version 2 is affected by 1 .*; choose 1"):
        aliases.rollback(service, caller, model.id, "back", "worse", lambda _: None)

    aliases.put(service, caller, model.id, "live", AliasPut(version=1, reason="x"), lambda _: None)
    aliases.remove(service, caller, model.id, "live", lambda _: None)
    with service.db.read() as session, pytest.raises(NotFound):
        serving.resolve(session, tenant.id, model.id, "live", None)


def test_an_alias_of_a_version_of_which_nothing_is_left_falls_back_where_the_model_says_so(
    service, tenant, caller
):
    methods = [("ncm", {}), ("fetril", {"solver": "closed_form"})]
    model, old, data = steps(service, tenant, caller, BY_CLASS[:2], methods, on_taint="fall-back")
    aliases.put(service, caller, model.id, "live", AliasPut(version=2, reason="now"), lambda _: None)
    forget(service, tenant, data[1], *range(len(BY_CLASS[1])))
    with service.db.read() as session:
        assert session.query(Alias).filter_by(model_id=model.id).one().version_id == old[0].id


def deep(service, tenant, caller, gone=(), **changes):
    """A network, a head on its features, and one more; versions and datasets."""
    model = a_model(service, caller, input={"kind": "vector", "shape": [6]}, network=MLP, **changes)
    parts = (
        [i for i, name in enumerate(LABELS) if name != "dog"],
        [i for i, n in enumerate(LABELS) if n == "dog"],
    )
    split = [[int(k % 5 == 4) for k, _ in enumerate(part)] for part in parts]
    data = []
    for part, own in zip(parts, split, strict=True):
        kept = [k for k, i in enumerate(part) if i not in gone]
        data.append(sent(service, tenant, LABELS, X, [part[k] for k in kept], split=[own[k] for k in kept]))
    first = published(service, caller, model, data[0], "supervised", params=TRAINED, seed=7)
    second = published(service, caller, model, data[1], "fetril", params={"solver": "closed_form"})
    return model, [first, second], data


@pytest.mark.parametrize("keep", [5, 1])
def test_a_network_that_saw_the_rows_is_trained_again_and_everything_on_it(service, tenant, caller, keep):
    _, wanted, _ = deep(service, tenant, caller, gone={BY_CLASS[0][1]})
    model, old, data = deep(service, tenant, caller, keep_versions=keep)
    while run_next_of(service, "purge"):
        pass
    at = [i for i, name in enumerate(LABELS) if name != "dog"].index(BY_CLASS[0][1])

    request, job = forget(service, tenant, data[0], at)

    assert job.state == "succeeded", job.error
    new = replacement_of(service, old[1])
    assert weights(service, new) == weights(service, wanted[1])
    assert items_of(service, request)[old[1].id].detail["way"] == "retrain"
    assert new.feature_map_id != old[1].feature_map_id
    assert new.metrics["accuracy"] == wanted[1].metrics["accuracy"]
    with service.db.read() as session:
        made = session.query(Shard).filter_by(feature_map_id=new.feature_map_id)
        assert {shard.dataset_id for shard in made} == {one.id for one in data}
        source = session.get_one(FeatureMap, new.feature_map_id).source
    first = replacement_of(service, old[0])
    assert source == f"version:{(new if keep == 1 else first).id.hex}"
    if keep == 5:
        assert weights(service, first) == weights(service, wanted[0])
        one, other = (snapshots.load(service, v.id).snapshot.weights for v in (first, wanted[0]))
        assert all((one[name] == other[name]).all() for name in other)
    more = a_dataset(service, tenant.id, rows(eel=4), width=6, seed=4)
    drain(service)
    assert learn(service, caller, model, [more], "ncm").number


def test_a_network_that_did_not_see_the_rows_stays(service, tenant, caller):
    _, old, data = deep(service, tenant, caller)
    _, job = forget(service, tenant, data[1], 0)
    assert job.state == "succeeded", job.error
    assert replacement_of(service, old[0]) is None
    assert replacement_of(service, old[1]).feature_map_id == old[0].feature_map_id


def test_a_network_outlives_the_version_that_trained_it_and_is_replaced_for_its_metrics(
    service, tenant, caller
):
    """The row was only measured with: position 4 of the first dataset is of split eval."""
    _, old, data = deep(service, tenant, caller)
    before = snapshots.load(service, old[0].id).snapshot
    first, second = weights(service, old[0]), weights(service, old[1])
    _, job = forget(service, tenant, data[0], 4)
    assert job.state == "succeeded", job.error
    drain(service)
    new = [replacement_of(service, version) for version in old]
    assert [weights(service, one) for one in new] == [first, second]
    for one in new:
        after = snapshots.load(service, one.id).snapshot.weights
        assert all((after[name] == before.weights[name]).all() for name in before.weights)
    assert {as_it_is(service, version).state for version in old} == {"purged"}


def run_next_of(service, kind):
    """Run the next job if it is of this kind."""
    with service.db.read() as session:
        waiting = session.query(Job).filter_by(state="queued", kind=kind).count()
    return run_next(service) if waiting else None


def drain(service):
    while run_next_of(service, "purge"):
        pass


def test_statistics_of_a_retired_version_are_replaced_for_those_that_build_on_them(service, tenant, caller):
    index = np.array_split(np.arange(32), 4)
    model = an_exact_model(service, caller, keep_versions=1)
    data = [sent(service, tenant, LABELS, X, part) for part in index]
    first = published(service, caller, model, data[0], "analytic", on_conflict="extend")
    second = published(service, caller, model, data[1], "ncm", on_conflict="extend")
    drain(service)
    assert as_it_is(service, first).state == "retired"

    _, job = forget(service, tenant, data[0], 3)

    assert job.state == "succeeded", job.error
    kept = replacement_of(service, first)
    assert (kept.state, kept.parent_id) == ("retired", None)
    without = [i for i in index[0] if i != 3]
    assert (
        snapshots.statistics_of(service, kept.id).digest()
        == reference([LABELS[i] for i in without], X[without]).digest()
    )
    drain(service)
    assert replacement_of(service, second).parent_id == kept.id
    last = published(service, caller, model, data[2], "analytic", on_conflict="extend")
    rest = [i for i in range(24) if i != 3]
    assert digests(service, last)[0] == reference([LABELS[i] for i in rest], X[rest]).digest()


def test_an_evaluation_row_changes_the_metrics_and_no_byte_of_the_head(service, tenant, caller):
    split = [int(i % 4 == 3) for i in range(32)]
    model = an_exact_model(service, caller)
    data = sent(service, tenant, LABELS, X, np.arange(32), split=split)
    old = learn(service, caller, model, [data], "analytic")
    learned_too = learn(service, caller, model, [], "lda")

    request, job = forget(service, tenant, data, 3)

    assert job.state == "succeeded", job.error
    for before in (old, learned_too):
        new = replacement_of(service, before)
        assert digests(service, new) == digests(service, before)
        assert edge(service, new, data, "evaluate").rows == edge(service, before, data, "evaluate").rows - 1
        assert edge(service, new, data, "train").rows == edge(service, before, data, "train").rows
        assert 3 in edge(service, new, data, "evaluate").left_out
    assert replacement_of(service, learned_too).parent_id == replacement_of(service, old).id
    with service.db.read() as session:
        assert not ledger.tainted(session, [replacement_of(service, old).id])
    assert request_of(service, request).state == "purging"


def edge(service, version, data, role):
    with service.db.read() as session:
        return session.get_one(VersionDataset, (version.id, data.id, role))


def test_parameters_chosen_on_the_rows_are_chosen_again(service, tenant, caller):
    judge = sent(service, tenant, LABELS, X, np.arange(32))
    less = sent(service, tenant, LABELS, X, np.arange(2, 32))
    made = []
    for one in (less, judge):
        model = an_exact_model(service, caller, evaluation=ids.encode("dst", one.id))
        more, y = many(seed=7)
        base = sent(service, tenant, more * 2, np.concatenate([y, y + 0.1]), np.arange(64))
        learn(service, caller, model, [base], "ncm")
        few = a_dataset(service, tenant.id, ["eel", "eel"], width=6, seed=5)
        made.append(learn(service, caller, model, [few], "teen", {"choose": True, "shots": 5}))

    _, job = forget(service, tenant, judge, 0, 1)

    assert job.state == "succeeded", job.error
    new = replacement_of(service, made[1])
    assert weights(service, new) == weights(service, made[0])
    assert new.report == made[0].report
    assert new.metrics["accuracy"] == made[0].metrics["accuracy"]
    assert (judge.id, "select", False) in uses(service, new)


@pytest.mark.parametrize("method", ["analytic", "ncm"])
def test_a_class_goes_whole_from_the_model_and_its_rows_from_others(service, tenant, caller, method):
    part = np.arange(32)
    model, other = an_exact_model(service, caller), an_exact_model(service, caller)
    data = sent(service, tenant, LABELS, X, part)
    without = [i for i in part if LABELS[i] != "cat"]
    wanted = learn(
        service, caller, an_exact_model(service, caller), [sent(service, tenant, LABELS, X, without)], method
    )
    old = learn(service, caller, model, [data], method)
    theirs = learn(service, caller, other, [data], method)
    with service.db.read() as session:
        cat = session.query(ModelClass).filter_by(model_id=model.id, name="cat").one()

    request, job = forget_class(service, tenant, cat.id)

    assert job.state == "succeeded", job.error
    new = replacement_of(service, old)
    assert weights(service, new) == weights(service, wanted)
    assert snapshots.load(service, new.id).snapshot.classes == ("ant", "bee", "dog")
    with service.db.read() as session:
        assert session.get_one(ModelClass, cat.id).retired_at is not None
    assert request_of(service, request).state in ("locating", "unlearning")  # until the other model is done
    assert run_next(service).kind == "forget"
    assert weights(service, replacement_of(service, theirs)) == weights(service, wanted)
    assert request_of(service, request).state == "purging"
    evidence = request_of(service, request).evidence
    assert (evidence["rows"], evidence["datasets"]) == (len(part) - len(without), 1)


def test_rows_that_are_only_restricted_stay_in_the_replacement(service, tenant, caller):
    part = np.arange(32)
    wanted = learn(
        service,
        caller,
        an_exact_model(service, caller),
        [sent(service, tenant, LABELS, X, part[1:])],
        "analytic",
    )
    data = sent(service, tenant, LABELS, X, part)
    old = learn(service, caller, an_exact_model(service, caller), [data], "analytic")
    restrict(service, data, 5)
    forget(service, tenant, data, 0)
    assert digests(service, replacement_of(service, old)) == digests(service, wanted)


def test_what_is_on_hold_stays_and_taints_the_replacement(service, tenant, caller):
    data = sent(service, tenant, LABELS, X, np.arange(32))
    old = learn(service, caller, an_exact_model(service, caller), [data], "analytic")
    hold = {"reason": "court", "until": None, "actor": "test"}
    approved(service, tenant, [f"row:{data.id.hex}:1"], hold=hold)
    forget(service, tenant, data, 0)
    new = replacement_of(service, old)
    assert edge(service, new, data, "train").left_out == [0]
    with service.db.read() as session:
        assert ledger.tainted(session, [new.id]) == {new.id: 1}


def test_erasures_that_wait_are_carried_out_by_one_job_and_each_request_knows_its_versions(
    service, tenant, caller
):
    index = np.array_split(np.arange(32), 2)
    data = [sent(service, tenant, LABELS, X, part) for part in index]
    model = an_exact_model(service, caller)
    old = [learn(service, caller, model, [one], "analytic", on_conflict="extend") for one in data]
    first = approved(service, tenant, [f"row:{data[0].id.hex}:1"])
    second, job = forget(service, tenant, data[1], 2)
    rest = [i for i in range(32) if i not in (1, 18)]
    newest = replacement_of(service, old[1])
    assert digests(service, newest)[0] == reference([LABELS[i] for i in rest], X[rest]).digest()
    assert set(items_of(service, first)) == {version.id for version in old}
    assert set(items_of(service, second)) == {old[1].id}
    assert job.result["replaced"] == 2
    assert {request_of(service, one).state for one in (first, second)} == {"purging"}


def test_nothing_is_done_twice(service, tenant, caller):
    data = sent(service, tenant, LABELS, X, np.arange(32))
    old = learn(service, caller, an_exact_model(service, caller), [data], "analytic")
    forget(service, tenant, data, 4)
    new = replacement_of(service, old)
    drain(service)
    again = approved(service, tenant, [f"row:{data.id.hex}:4"])
    assert request_of(service, again).state == "purging"  # no version knows the row
    assert items_of(service, again, "model") == {}
    assert as_it_is(service, new).state == "ready"


def test_a_job_that_finds_no_version_with_the_rows_replaces_none(service, tenant, caller):
    data = sent(service, tenant, LABELS, X, np.arange(32))
    old = learn(service, caller, an_exact_model(service, caller), [data], "analytic")
    forget(service, tenant, data, 4)  # the old version still stands, until the purge
    again = approved(service, tenant, [f"row:{data.id.hex}:4"])
    while request_of(service, again).state == "locating":
        done = run_next(service)
    assert (done.kind, done.result["replaced"]) == ("forget", 0)
    assert as_it_is(service, replacement_of(service, old)).state == "ready"


def test_opens_the_shards_of_the_rows_and_nothing_that_grows_with_what_was_learned(
    service, tenant, caller, monkeypatch
):
    read = {}
    for past in (24, 240):
        model = an_exact_model(service, caller)
        rng = np.random.default_rng(past)
        labels = [("ant", "bee", "cat")[i % 3] for i in range(past)]
        data = sent(service, tenant, labels, rng.standard_normal((past, 6)), np.arange(past))
        learn(service, caller, model, [data], "analytic")
        with monkeypatch.context() as patch:
            sizes: list[int] = []
            opened = service.vault.open

            def counted(id, key, opened=opened, sizes=sizes):
                raw = opened(id, key)
                sizes.append(len(raw))
                return raw

            patch.setattr(service.vault, "open", counted)
            _, job = forget(service, tenant, data, 9)
        assert job.state == "succeeded", job.error
        read[past] = sorted(sizes)
        drain(service)
    assert read[24] == read[240]


def test_sums_that_do_not_contain_the_rows_are_made_again_from_those_that_stay(service, tenant, caller):
    part = np.arange(32)
    data = sent(service, tenant, LABELS, X, part)
    old = learn(service, caller, an_exact_model(service, caller), [data], "analytic")
    key = service.vault.key(old.key_id)
    lie = reference(LABELS[:4], X[:4] + 1)
    key = service.vault.seal(old.statistics_file_id, [dump(lie.arrays())], key)
    service.vault.write_key(old.key_id, replace(key, digests={**key.digests, "statistics": lie.digest()}))

    request, job = forget(service, tenant, data, 0)

    assert job.state == "succeeded", job.error
    rest = part[1:]
    new = replacement_of(service, old)
    assert digests(service, new)[0] == reference([LABELS[i] for i in rest], X[rest]).digest()
    assert items_of(service, request)[old.id].detail["way"] == "retrain"


@pytest.mark.parametrize("method", ["lda", "fetril"])
def test_rows_that_are_not_stored_any_more_are_left_out_of_a_version_made_anew(
    service, tenant, caller, method
):
    """As after a restore: the rows are gone and nothing could be subtracted."""
    params = {"solver": "closed_form"} if method == "fetril" else {}
    methods = [("ncm", {}), (method, params)]
    gone = BY_CLASS[0][0]
    _, wanted, _ = steps(service, tenant, caller, BY_CLASS[:2], methods, {gone})
    _, old, data = steps(service, tenant, caller, BY_CLASS[:2], methods)
    drop_rows(service, data[0], 0)

    request, job = forget(service, tenant, data[0], 0)

    assert job.state == "succeeded", job.error
    for before, expected in zip(old, wanted, strict=True):
        assert weights(service, replacement_of(service, before)) == weights(service, expected)
        assert items_of(service, request)[before.id].detail["way"] == "retrain"


def drop_rows(service, data, *positions):
    """What a purge does to the first shard as sent; features of rows that are not there are not read."""
    with service.db.read() as session:
        shard = session.query(Shard).filter_by(dataset_id=data.id, feature_map_id=None, first=0).one()
    rewrite(service, shard, [i for i in range(shard.rows) if i not in positions])


def test_a_version_whose_rows_are_nowhere_goes_without_a_replacement(service, tenant, caller):
    model, old, data = steps(service, tenant, caller, BY_CLASS[:2], [("analytic", {}), ("ncm", {})])
    with service.db.begin() as session:
        row = session.get_one(Dataset, data[0].id)
        row.deleted_at = row.created_at

    request, job = forget(service, tenant, data[0], 0, withdraw=True)

    assert job.state == "succeeded", job.error
    assert job.result["dropped"] == 2
    assert [as_it_is(service, version).state for version in old] == ["retired", "retired"]
    assert "not stored any more" in items_of(service, request)[old[1].id].detail["reason"]
    assert request_of(service, request).state == "purging"
    with service.db.read() as session:
        assert session.query(Version).filter_by(model_id=model.id, state="ready").count() == 0


@pytest.mark.parametrize("method", ["analytic", "ncm"])
def test_a_class_whose_rows_are_not_stored_any_more_goes_all_the_same(service, tenant, caller, method):
    part = np.arange(32)
    without = [i for i in part if LABELS[i] != "cat"]
    other = an_exact_model(service, caller)
    wanted = learn(service, caller, other, [sent(service, tenant, LABELS, X, without)], method)
    model = an_exact_model(service, caller)
    data = sent(service, tenant, LABELS, X, part)
    old = learn(service, caller, model, [data], method)
    with service.db.read() as session:
        cat = session.query(ModelClass).filter_by(model_id=model.id, name="cat").one()
        stored = session.query(Shard).filter_by(dataset_id=data.id, feature_map_id=None).all()
    for shard in stored:
        at = range(shard.first, shard.first + shard.rows)
        rewrite(service, shard, [i - shard.first for i in at if i in without])
    _, job = forget_class(service, tenant, cat.id)
    assert job.state == "succeeded", job.error
    assert weights(service, replacement_of(service, old)) == weights(service, wanted)
