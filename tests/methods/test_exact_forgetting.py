"""Exact forgetting: sums less those of the rows, and a head made anew, are the bytes of training without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.methods import BY_NAME
from app.methods.base import Context, Rows, Snapshot, Split, Unfit
from app.methods.networks.spec import InputSpec, NetworkSpec
from app.methods.parts.expansion import Expansion
from app.methods.parts.grid import quantise
from app.methods.parts.model_settings import FixedRidge, TargetGrid
from app.methods.parts.statistics import Statistics
from app.methods.unlearning import exact
from app.methods.unlearning.exact import Misfit, NothingLeft

WIDTH = 5
EXPANSION, PLAIN = Expansion(width=9, seed=3), FixedRidge()
GIVEN = {"teen": {"shots": 6}}  # so that some classes are calibrated by others
NAMES = ("ant", "bee", "cat", "dog")
HEADS = ("analytic", "lda", "naive_bayes", "ncm", "teen", "ridge_regression")
SUMMED = ("analytic", "lda", "naive_bayes")
each_head = pytest.mark.parametrize("name", HEADS)


def a_model(name: str, ridge=PLAIN) -> Snapshot:
    regression = name == "ridge_regression"
    return Snapshot(
        InputSpec(kind="vector", shape=(WIDTH,)),
        "normalised",
        NetworkSpec(name="identity"),
        expansion=None if name in ("ncm", "teen") else EXPANSION,
        ridge=ridge,
        target=TargetGrid(exponent=-8) if regression else None,
    )


def many(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grid rows near one axis per class, the classes in turn, and targets."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % len(NAMES)
    x = np.eye(WIDTH)[labels] + 0.4 * rng.standard_normal((rows, WIDTH))
    return quantise(x.astype(np.float32), "normalised")[0], labels, np.round(x @ np.arange(WIDTH), 2)


def rows_of(data: tuple[np.ndarray, np.ndarray, np.ndarray], index, name: str, block: int = 3) -> Rows:
    x, labels, targets = (part[list(index)] for part in data)
    blocks = [x[at : at + block] for at in range(0, len(x), block)]
    if name == "ridge_regression":
        return Rows(("",), np.zeros(len(x), np.int64), lambda: iter(blocks), targets)
    present = sorted(set(labels.tolist()))
    place = np.array([present.index(i) if i in present else -1 for i in range(len(NAMES))])
    return Rows(tuple(NAMES[i] for i in present), place[labels], lambda: iter(blocks))


def learn(name: str, before: Snapshot, rows: Rows, **params) -> Snapshot:
    method = BY_NAME[name]
    return method.run(
        before, {Split.NEW: rows}, method.params(**GIVEN.get(name, {}) | params), Context()
    ).after


def forget(name: str, version: Snapshot, rows: Rows, **params) -> Snapshot:
    method = BY_NAME[name]
    return exact.forget(version, rows, method, method.params(**GIVEN.get(name, {}) | params), Context()).after


def bytes_of(version: Snapshot):
    """Digests of statistics and weights, and the integers of the centroids."""
    assert version.head is not None
    return (
        version.statistics and version.statistics.digest(),
        version.head.digest(version.classes),
        {name: (one.sum.tolist(), one.count) for name, one in version.centroids.items()},
    )


def trained(name: str, data, index, model: Snapshot | None = None, **params):
    return bytes_of(learn(name, model or a_model(name), rows_of(data, index, name), **params))


@each_head
@settings(max_examples=12, deadline=None)
@given(script=st.data())
def test_any_sequence_of_learning_forgetting_and_new_heads_gives_training_on_the_survivors(name, script):
    data = many(64, seed=script.draw(st.integers(0, 50)))
    version, known = learn(name, a_model(name), rows_of(data, range(12), name)), list(range(12))
    unseen = list(range(12, 64))
    for _ in range(script.draw(st.integers(1, 5))):
        step = script.draw(st.sampled_from(["learn", "forget", "remake"]))
        if step == "learn" and unseen:
            count = script.draw(st.integers(1, len(unseen)))
            version = learn(name, version, rows_of(data, unseen[:count], name))
            known, unseen = known + unseen[:count], unseen[count:]
        elif step == "forget":
            gone = script.draw(st.permutations(known))[: script.draw(st.integers(1, max(1, len(known) // 4)))]
            left = [i for i in known if i not in gone]
            if len({int(data[1][i]) for i in left}) < 2 or len(left) < 10:
                continue
            version, known = forget(name, version, rows_of(data, gone, name)), left
        else:
            version = learn(name, version, exact.no_rows() if name != "ridge_regression" else _no_targets())
    assert bytes_of(version) == trained(name, data, known)


def _no_targets() -> Rows:
    return replace(exact.no_rows(), targets=np.zeros(0))


def statistics(version: Snapshot | exact.Sums) -> Statistics:
    assert version.statistics is not None
    return version.statistics


@pytest.mark.parametrize("name", SUMMED)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), parts=st.integers(2, 4))
def test_statistics_that_were_merged_forget_at_the_source_and_merge_again(name, seed, parts):
    data = many(48, seed)
    index = np.array_split(np.random.default_rng(seed).permutation(48), parts)
    each = [statistics(learn(name, a_model(name), rows_of(data, part, name))) for part in index]
    gone = index[0][:3]
    first = replace(a_model(name), statistics=each[0])
    source = each[0].subtract(statistics(exact.sums(first, rows_of(data, gone, name), Context())))
    for other in each[1:]:
        source = source.merge(other)
    left = [i for part in index for i in part if i not in gone]
    assert source.digest() == trained(name, data, left)[0]


@each_head
def test_a_thousandth_of_the_rows_that_is_left_is_what_training_on_it_gives(name):
    data = many(12_000)
    left = range(0, 12)
    version = learn(name, a_model(name), rows_of(data, range(12_000), name, block=512))
    assert bytes_of(forget(name, version, rows_of(data, range(12, 12_000), name, block=512))) == trained(
        name, data, left
    )


@pytest.mark.parametrize("name", ["analytic", "ridge_regression"])
def test_a_tiny_ridge_forgets_to_the_bit(name):
    data, model = many(120), a_model(name, FixedRidge(k=-30))
    version = learn(name, model, rows_of(data, range(120), name))
    found = forget(name, version, rows_of(data, range(0, 120, 7), name))
    assert bytes_of(found) == trained(name, data, [i for i in range(120) if i % 7], model)


@pytest.mark.parametrize("name", HEADS[:-1])
def test_a_whole_class_leaves_statistics_centroids_and_head(name):
    data = many(40)
    gone = [i for i in range(40) if data[1][i] == 2]
    found = forget(
        name, learn(name, a_model(name), rows_of(data, range(40), name)), rows_of(data, gone, name)
    )
    assert found.classes == ("ant", "bee", "dog")
    assert "cat" not in found.centroids
    assert bytes_of(found) == trained(name, data, [i for i in range(40) if i not in gone])


@pytest.mark.parametrize("name", HEADS[:-1])
def test_the_last_row_of_a_class_takes_the_class_along(name):
    data = many(40)
    index = [i for i in range(40) if data[1][i] != 2 or i == 2]
    found = forget(name, learn(name, a_model(name), rows_of(data, index, name)), rows_of(data, [2], name))
    assert found.classes == ("ant", "bee", "dog")
    assert bytes_of(found) == trained(name, data, [i for i in index if i != 2])


@each_head
def test_of_two_equal_rows_one_stays(name):
    x, labels, targets = many(40)
    twice = np.concatenate([x, x[:1]]), np.concatenate([labels, labels[:1]]), np.append(targets, targets[0])
    version = learn(name, a_model(name), rows_of(twice, range(41), name))
    assert bytes_of(forget(name, version, rows_of(twice, [40], name))) == trained(name, twice, range(40))


def test_a_row_that_decided_the_ridge_is_forgotten_with_the_ridge():
    changed = 0
    for seed in range(12):
        data = many(26, seed)
        data[0][25] = -data[0][25]  # an outlier of its class
        model = a_model("analytic", "gcv")
        before = learn("analytic", model, rows_of(data, range(26), "analytic"))
        found = BY_NAME["analytic"]
        outcome = exact.forget(before, rows_of(data, [25], "analytic"), found, found.params(), Context())
        assert bytes_of(outcome.after) == trained("analytic", data, range(25), model)
        again = found.run(before, {Split.NEW: exact.no_rows()}, found.params(), Context())
        changed += again.report["k"] != outcome.report["k"]
    assert changed


@each_head
def test_rows_that_are_gone_already_are_refused_where_sums_can_tell(name):
    data = many(24)
    half = rows_of(data, range(0, 24, 2) if name == "ridge_regression" else [0, 4, 8, 12, 16, 20], name)
    rest = forget(name, learn(name, a_model(name), rows_of(data, range(24), name)), half)
    with pytest.raises((Misfit, NothingLeft)):
        forget(name, forget(name, rest, half), half)


@each_head
def test_rows_that_were_never_learned_are_refused(name):
    data = many(24)
    version = learn(name, a_model(name), rows_of(data, range(12), name))
    strange = (np.full((40, WIDTH), 32_000, np.int16), np.zeros(40, np.int64), np.full(40, 100.0))
    with pytest.raises(Misfit):
        forget(name, version, rows_of(strange, range(40), name))


@each_head
def test_nothing_is_left_of_a_version_without_rows(name):
    data = many(24)
    version = learn(name, a_model(name), rows_of(data, range(24), name))
    with pytest.raises(NothingLeft):
        forget(name, version, rows_of(data, range(24), name))


def test_a_covariance_without_spread_is_no_head():
    data = many(24)
    version = learn("lda", a_model("lda"), rows_of(data, range(24), "lda"))
    with pytest.raises(Unfit):
        forget("lda", version, rows_of(data, range(4, 24), "lda"))


@pytest.mark.parametrize("solver", ["closed_form", "svm"])
def test_a_step_learned_again_is_what_learning_without_the_rows_gives(solver):
    data = many(80)
    first = [i for i in range(80) if data[1][i] < 2]
    second = [i for i in range(80) if data[1][i] >= 2]
    gone = {first[3], second[1], second[8]}
    whole = learn(
        "fetril",
        learn("fetril", a_model("ncm"), rows_of(data, first, ""), solver=solver),
        rows_of(data, second, ""),
        solver=solver,
    )
    known = learn(
        "fetril", a_model("ncm"), rows_of(data, [i for i in first if i not in gone], ""), solver=solver
    )
    wanted = learn("fetril", known, rows_of(data, [i for i in second if i not in gone], ""), solver=solver)

    cleaned = exact.without(whole, exact.sums(whole, rows_of(data, sorted(gone), ""), Context()))
    own = rows_of(data, [i for i in second if i not in gone], "")
    method = BY_NAME["fetril"]
    found = exact.learned_again(cleaned, own, method, method.params(solver=solver), Context()).after
    assert bytes_of(found) == bytes_of(wanted)


def test_a_step_without_rows_of_its_own_is_nothing():
    data = many(80)
    version = learn("ncm", a_model("ncm"), rows_of(data, range(40), ""))
    method = BY_NAME["fetril"]
    with pytest.raises(NothingLeft):
        exact.learned_again(version, exact.no_rows(), method, method.params(), Context())


@each_head
def test_the_identity_of_sums_holds_for_the_rows_and_for_no_others(name):
    data = many(24)
    old = learn(name, a_model(name), rows_of(data, range(24), name))
    new = forget(name, old, rows_of(data, [1, 2], name))
    same = exact.identity(old, new, exact.sums(old, rows_of(data, [2, 1], name), Context()), 2)
    assert same.holds
    assert same.rows_before - same.rows_after == 2
    assert not exact.identity(old, new, exact.sums(old, rows_of(data, [1, 6], name), Context()), 2).holds
