"""The benchmarks of the exact heads: the peers against closed forms, protocols against plain updates."""

from __future__ import annotations

import numpy as np
import pytest

from app.methods.base import Snapshot
from app.methods.incremental import analytic, ncm, teen
from app.methods.parts.refined_solve import rounded_weights, until_decided
from app.methods.parts.ridge import ridge
from app.methods.parts.statistics import Statistics
from benchmarks import blurry, common, few_shot, growth, heads, samples, solve, suite
from benchmarks.candidates import HEADS, arriving, digests, learn, model, rows_of
from benchmarks.common import Bar, at_least
from benchmarks.few_shot import choose_bias, few_rows, held_out_rows, judged, positions, scores_of
from benchmarks.recursion import Recursion, grid_rows, statistics_of
from benchmarks.sequence import on_grid, predict
from benchmarks.sets import load, validation
from benchmarks.streaming import StreamingLda
from benchmarks.suite import Found, Given


@pytest.fixture(scope="module")
def given() -> Given:
    return Given(load(None, "digits"), validation(None, "digits"))


def test_choices_are_made_on_training_rows(given):
    learned = {row.tobytes() for row in given.data.x_train}

    assert all(row.tobytes() in learned for row in given.choose.x_test)
    assert len(given.choose.x_train) + len(given.choose.x_test) == len(given.data.x_train)


def test_the_recursion_is_the_ridge_solution_of_all_rows():
    source = np.random.default_rng(0)
    x, y = source.integers(0, 50, (90, 12)), source.integers(0, 4, 90)
    y[:30] = np.where(y[:30] == 1, 3, y[:30])  # class 1 comes later
    peer = Recursion(12, ridge=700.0)

    for first in range(0, 90, 30):
        peer.learn(x[first : first + 30], y[first : first + 30])

    whole = np.linalg.solve(x.T @ x + 700.0 * np.eye(12), x.T @ np.eye(4)[y])
    assert peer.sorted_weight() == pytest.approx(whole, rel=1e-9, abs=1e-12)
    assert peer.predict(x).tolist() == (x @ whole).argmax(axis=1).tolist()


def test_the_streaming_peer_has_the_mean_and_covariance_of_all_rows():
    x = np.random.default_rng(0).standard_normal((40, 5))
    peer = StreamingLda(5)

    peer.learn(x[:15], np.zeros(15, np.int64))
    peer.learn(x[15:], np.zeros(25, np.int64))

    assert peer.means[0] == pytest.approx(x.mean(axis=0))
    assert peer.covariance == pytest.approx(np.cov(x.T, ddof=0))


def test_the_system_that_is_timed_is_the_one_that_the_head_solves(given):
    before = model(given.data, width=40)
    found = statistics_of(grid_rows(given.data.x_train, before), given.data.y_train, before.expansion)

    weights = until_decided(solve.centred(found), rounded_weights)

    assert np.array_equal(weights.T, ridge(found, -4, step_bits=0).weight)


@pytest.mark.parametrize("classes", [100, 150])
def test_a_class_is_cut_into_as_many_as_it_takes(classes):
    labels = np.repeat(np.arange(classes), 10)

    assert np.unique(solve.cut(labels)).tolist() == list(range(150))


def test_a_version_that_differs_from_joint_training_ends_the_run(given):
    order = arriving(given.data, seed=0)[:2]
    candidate = HEADS["lda"]
    _, found = heads.digested(given.data, order, candidate)

    heads.equals_joint(given.data, order, candidate, found)
    with pytest.raises(SystemExit, match="lda, state 1"):
        heads.equals_joint(given.data, order, candidate, [found[0], found[0]])


def test_a_session_is_what_an_update_with_its_classes_alone_gives(given, monkeypatch):
    monkeypatch.setattr(few_shot, "WAYS", 2)
    data, base, new = given.data, np.arange(5), np.array([7, 9, 5, 8])
    first = learn(model(data), rows_of(data, positions(data, base), model(data)), ncm.METHOD, ncm.NcmParams())
    chosen = few_rows(data, new, shots=3, seed=0)
    version = learn(first, rows_of(data, chosen, first), teen.METHOD, teen.TeenParams())
    table = np.full((len(data.y_test), 10), -np.inf)
    table[:, np.sort(np.concatenate([base, new]))] = scores_of(version, data)

    sessions = judged(table, data, base, new)

    rows = rows_of(data, chosen[:6], first)
    alone = learn(first, rows, teen.METHOD, teen.TeenParams())
    right = predict(alone, on_grid(data.x_test, alone)) == data.y_test
    old, few = (right[np.isin(data.y_test, part)].mean() for part in (base, new[:2]))
    assert len(sessions) == 2
    assert sessions[0] == pytest.approx([old, few, 2 * old * few / (old + few)])


def test_a_bias_for_new_classes_is_chosen_where_base_classes_play_them(given):
    base = np.arange(5)
    first = learn(
        model(given.data),
        rows_of(given.data, positions(given.data, base), model(given.data)),
        ncm.METHOD,
        ncm.NcmParams(),
    )

    assert choose_bias(given.choose, base, first, shots=1) > 0
    assert set(held_out_rows(given.choose, base, first).classes) == set(first.classes)


def test_a_stream_holds_every_row_once_and_some_classes_in_one_piece():
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(20), 50))

    order = blurry.stream(labels, seed=0)

    assert sorted(order.tolist()) == list(range(1000))
    spread = [np.ptp(np.flatnonzero(labels[order] == c)) for c in range(20)]
    assert sum(reach < 600 for reach in spread) >= 8
    assert sum(reach > 600 for reach in spread) >= 8


def test_a_tail_is_a_hundredth_of_the_largest_class(given):
    sizes = np.sort(np.bincount(blurry.thinned(given.data).y_train))[::-1]

    assert sizes[0] == np.bincount(given.data.y_train).min()
    assert sizes[-1] == 1
    assert sizes[4] == pytest.approx(sizes[0] * 100 ** (-4 / 9), abs=1)


def test_streams_compare_digests_of_the_same_rows_in_another_order(given):
    small = samples.few(given.data, count=5, draw=0)
    head = blurry.Ours(model(small, width=50), analytic.METHOD, analytic.AnalyticParams())
    take, guess = head.functions(small)

    line = blurry.anytime(small, np.array_split(np.arange(50), 10), take, guess)

    assert head.equals(small, np.arange(50)[::-1])
    assert not head.equals(small, np.arange(49))
    assert 0.5 < line["last"] <= 1


@pytest.mark.parametrize("times", [1, 5, 8])
def test_a_past_that_came_again_is_that_many_merges(given, times):
    before = model(given.data)
    version = learn(
        before, rows_of(given.data, np.arange(30), before), HEADS["lda"].method, HEADS["lda"].params
    )

    found = growth.repeated(version, 30 * times)

    assert statistics(found).rows == 30 * times
    assert np.array_equal(statistics(found).gram, times * statistics(version).gram)


def statistics(version: Snapshot) -> Statistics:
    assert version.statistics is not None
    return version.statistics


def test_a_head_is_ahead_from_where_it_stays_so():
    lines = [
        {"rows_per_class": n, "naive_bayes": 0.5, "other": other}
        for n, other in ((2, 0.6), (5, 0.4), (10, 0.6), (20, 0.7))
    ]

    assert samples.ahead(lines, "other") == 10
    assert samples.ahead(lines[:2], "other") is None


def test_a_part_that_runs_again_leaves_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    for chosen, part, value in (("a", "x", 1.0), ("a", "y", 2.0), ("b", "x", 3.0), ("a", "x", 4.0)):
        suite.keep("some", chosen, part, Found([{"value": value}], [at_least("high", value, 2.0)]))

    content = common.read("some")
    assert content is not None
    assert content["arguments"]["runs"][-1] == {"set": "a", "part": "x"}
    assert [row["value"] for row in content["rows"]] == [2.0, 3.0, 4.0]
    assert [Bar(**bar).name for bar in content["bars"]] == ["a, y: high", "b, x: high", "a, x: high"]


def test_digests_are_those_of_all_rows_at_once(given):
    candidate = HEADS["naive_bayes"]
    whole = np.arange(len(given.data.y_train))
    before = candidate.model(given.data)
    version = learn(before, rows_of(given.data, whole, before), candidate.method, candidate.params)

    assert digests(version) == heads.joint_digests(given.data, np.arange(10), candidate)
