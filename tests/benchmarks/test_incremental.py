"""The benchmark's own numbers: splits, intervals, traces, the peer, the file that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from app.methods.incremental import fetril, ncm
from app.methods.incremental.supervised import SupervisedParams
from benchmarks import common, from_base, sequence
from benchmarks.common import Bar, at_least, paired, write
from benchmarks.from_base import fine_tune, heads, train, untranslated
from benchmarks.incremental import Run, beside_others
from benchmarks.peer import Peer, learn_last
from benchmarks.pretrained import Duel, bars, empty_model
from benchmarks.sequence import Trace
from benchmarks.sets import Set, load, states


@pytest.fixture(scope="module")
def digits() -> Set:
    data = load(None, "digits")
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (data.x_train, data.x_test)]
    return Set("digits", unit[0], data.y_train, unit[1], data.y_test)


@pytest.mark.parametrize(
    ("classes", "base", "steps", "sizes"),
    [(150, 50, 10, [50] + [10] * 10), (136, 68, 10, [68] + [7] * 8 + [6] * 2), (10, 4, 3, [4, 2, 2, 2])],
)
def test_every_class_arrives_once(classes, base, steps, sizes):
    arriving = states(classes, base, steps, seed=1)

    assert [len(new) for new in arriving] == sizes
    assert sorted(np.concatenate(arriving)) == list(range(classes))
    assert not np.array_equal(np.concatenate(arriving), np.concatenate(states(classes, base, steps, seed=2)))


def test_intervals_are_those_of_the_paired_t_test():
    a, b = np.random.default_rng(0).standard_normal((2, 5))
    low, high = ttest_rel(a, b).confidence_interval(0.95)

    found = paired(a, b)

    assert found["low"] == pytest.approx(low)
    assert found["high"] == pytest.approx(high)


def test_traces_count_accuracy_and_forgetting_over_the_classes_so_far():
    y = np.array([0, 0, 1, 1])
    data = Set("four", np.zeros((4, 1)), y, np.zeros((4, 1)), y)
    trace = Trace()

    trace.judge(data, np.array([0]), np.array([0, 0]))
    trace.judge(data, np.array([0, 1]), np.array([0, 1, 1, 1]))

    assert trace.accuracy == [1.0, 0.75]
    assert trace.average == 0.875
    assert trace.forgetting == 0.5  # of class 0 alone: class 1 had no past


def test_the_peer_and_svm_agree_on_rows_of_length_one(digits, tmp_path):
    arriving = states(10, 5, 5, seed=0)
    ours = sequence.run(empty_model(digits), digits, arriving, fetril.METHOD, fetril.FetrilParams())
    peer, theirs = Peer(digits), Trace()
    for state, new in enumerate(arriving):
        theirs.seconds.append(peer.learn(new, tmp_path))
        seen = np.concatenate(arriving[: state + 1])
        theirs.judge(digits, seen, peer.predict(digits.x_test[np.isin(digits.y_test, seen)]))

    assert min(Duel(theirs, {"svm": ours}).agreement("svm")) >= 0.99


def test_the_peers_last_update_needs_no_earlier_fit(digits, tmp_path):
    arriving = states(10, 5, 5, seed=0)
    peer = Peer(digits)
    for new in arriving:
        peer.learn(new, tmp_path)
    whole = np.load(tmp_path / "peer.npz")["weight"]

    learn_last(digits, arriving, tmp_path)

    assert np.array_equal(np.load(tmp_path / "peer.npz")["weight"], whole)


def test_a_head_without_translation_forgets_what_it_never_compared(digits):
    arriving = states(10, 5, 5, seed=0)
    pairs = [arriving[0], *(np.concatenate(two) for two in (arriving[1:3], arriving[3:5]))]

    alone = untranslated(digits, empty_model(digits), pairs)
    together = sequence.run(empty_model(digits), digits, pairs, *heads(digits)["fetril"])

    assert alone.accuracy[0] == together.accuracy[0]
    assert alone.last < together.last


def test_fine_tuning_trains_the_network_on_new_rows_only(monkeypatch):
    monkeypatch.setitem(from_base.TRAINING, "few", SupervisedParams(epochs=8, turns=False))
    data = load(None, "digits", pixels=True)
    few = Set("few", data.x_train[:500], data.y_train[:500], data.x_test, data.y_test)
    first, _ = train(few, np.arange(4), seed=0)
    weights = {name: tensor.clone() for name, tensor in first.weights.items()}

    trace = fine_tune(few, first, [np.arange(4), np.arange(4, 6)], seed=0)

    old, new = ([trace.per_class[1][sequence.key(c)] or 0.0 for c in some] for some in ((0, 1, 2, 3), (4, 5)))
    assert trace.accuracy[0] > 0.9
    assert np.mean(new) > 0.8
    assert np.mean(old) < 0.8
    assert trace.forgetting > 0.1
    assert all(tensor.equal(weights[name]) for name, tensor in first.weights.items())


def test_bars_are_set_for_the_long_sequence_only():
    guesses = [np.zeros(2, np.int64), np.ones(2, np.int64)]
    trace = Trace([0.9, 0.8], [3.0, 3.0], guesses)
    quick = Trace([0.9, 0.8], [0.02, 0.02], guesses)
    traces = {"fetril svm": [quick], "fetril closed_form": [quick]}
    met = Duel(trace, {"fetril svm": quick, "fetril closed_form": quick})

    assert bars(traces, met, "digits") == []
    assert all(bar.holds for bar in bars(traces, met, "clinc150"))
    slow = Duel(trace, {"fetril svm": trace, "fetril closed_form": quick})
    assert [bar.holds for bar in bars(traces, slow, "clinc150")] == [True, False, True, True, True]


def test_leaves_one_file_that_names_no_path(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)

    path = write("some", {"sets": ["digits"]}, [{"method": "ncm", "last": 0.9}], [at_least("high", 2.0, 1.0)])

    content = json.loads(path.read_text())
    assert list(content) == ["machine", "arguments", "rows", "bars"]
    assert content["bars"] == [{"name": "high", "value": 2.0, "bar": 1.0, "holds": True}]
    assert str(tmp_path) not in path.read_text()
    assert at_least("high", 0.5, 1.0) == Bar("high", 0.5, 1.0, False)


def a_folder(root: Path, name: str, **arrays: np.ndarray) -> None:
    (root / name).mkdir()
    np.savez(root / name / "rows.npz", allow_pickle=False, **arrays)


def test_reads_every_format_of_a_set(tmp_path):
    y = np.array([0, 1])
    half = np.array([[0.5, 1.0], [2.0, 3.0]], np.float16)
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    codes = np.array([[1, 2], [3, 4]], np.uint8)
    a_folder(tmp_path, "plain", X_train=half, y_train=y, X_test=half, y_test=y)
    a_folder(tmp_path, "drawn", X=image, y=y, drawer=np.array([15, 16]))
    a_folder(
        tmp_path, "coded", X_new_train=codes, X_new_test=codes, scale_new=np.array([2, 10], np.float32),
        y_train=y, y_test=y,
    )  # fmt: skip

    assert load(tmp_path, "plain").x_train.dtype == np.float32
    drawn = load(tmp_path, "drawn", pixels=True)
    assert (drawn.y_train.tolist(), drawn.y_test.tolist()) == ([0], [1])
    assert load(tmp_path, "coded", features="new").x_test.tolist() == [[2, 20], [6, 40]]
    for missing, pixels in (("absent", False), ("plain", True), ("coded", False)):
        with pytest.raises(SystemExit, match=missing):
            load(tmp_path, missing, pixels=pixels)


def test_a_sequence_measures_every_state(digits):
    trace = sequence.run(empty_model(digits), digits, states(10, 5, 5, 0), ncm.METHOD, ncm.NcmParams())

    assert trace.last > 0.85
    assert len(trace.seconds) == len(trace.accuracy) == 6


def test_a_run_of_one_set_leaves_the_results_of_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    mine, other = Run("digits", 5, 5, pixels=False), Run("digits", 4, 3, pixels=True)
    for run in (mine, other, mine):
        rows = [{"track": run.track, "set": run.set, "method": "ncm"}]
        bar = at_least(f"{run.title}: high", 2.0, 1.0)
        said, rows, bars_ = beside_others(run, [vars(run)], rows, [bar])
        write("incremental", {"sets": said}, rows, bars_)

    content = common.read("incremental")
    assert content is not None
    assert [row["track"] for row in content["rows"]] == [other.track, mine.track]
    assert [run["pixels"] for run in content["arguments"]["sets"]] == [True, False]
    assert [bar["name"] for bar in content["bars"]] == [f"{r.title}: high" for r in (other, mine)]
