"""Metrics, against scikit-learn and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

from app.methods.parts.metrics import (
    PerClass,
    accuracy,
    accuracy_of,
    accuracy_per_class,
    confused_pairs,
    forgetting,
    measure,
)

CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    return truth, np.where(rng.random(300) < 0.6, truth, rng.integers(0, 4, 300))


def test_accuracies_are_those_of_scikit_learn(answers):
    truth, predicted = answers
    old = truth < 2

    metrics = measure(truth, predicted, CLASSES, old=("ant", "bee"))

    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert metrics["accuracy_old"] == pytest.approx(accuracy_score(truth[old], predicted[old]))
    assert metrics["accuracy_new"] == pytest.approx(accuracy_score(truth[~old], predicted[~old]))
    assert list(metrics["per_class"].values()) == pytest.approx(recall_score(truth, predicted, average=None))
    assert list(metrics["per_class"]) == list(CLASSES)
    assert metrics["rows_per_class"] == {name: int(np.sum(truth == i)) for i, name in enumerate(CLASSES)}


def test_accuracy_of_some_classes_is_that_of_their_rows(answers):
    truth, predicted = answers
    metrics = json.loads(json.dumps(measure(truth, predicted, CLASSES)))
    for chosen in ([0], [1, 3], range(4)):
        rows = np.isin(truth, list(chosen))
        found = accuracy_of(metrics, [CLASSES[i] for i in chosen] + ["of another version"])
        assert found == pytest.approx(accuracy_score(truth[rows], predicted[rows]))
    assert accuracy_of(metrics, []) is None
    assert accuracy_of({}, CLASSES) is None


def test_confused_pairs_are_the_largest_cells_off_the_diagonal(answers):
    truth, predicted = answers
    matrix = confusion_matrix(truth, predicted)

    pairs = confused_pairs(truth, predicted, CLASSES, limit=5)

    off = sorted(matrix[~np.eye(4, dtype=bool)], reverse=True)
    assert [pair["count"] for pair in pairs] == off[:5]
    for pair in pairs:
        row, column = CLASSES.index(pair["class"]), CLASSES.index(pair["predicted"])
        assert pair["count"] == matrix[row, column]
        assert pair["share"] == pytest.approx(matrix[row, column] / matrix[row].sum())


def test_says_null_and_no_number_where_there_are_no_rows():
    nothing = np.array([], dtype=np.int64)

    metrics = measure(nothing, nothing, CLASSES, old=("ant",), earlier=[{"ant": 0.5}])

    for name in ("accuracy", "accuracy_old", "accuracy_new", "forgetting"):
        assert metrics[name] is None
    assert set(metrics["per_class"].values()) == {None}
    assert metrics["confused"] == []


def test_a_class_without_rows_is_null_beside_others():
    truth, predicted = np.array([0, 0, 2]), np.array([0, 1, 2])

    assert accuracy_per_class(truth, predicted, CLASSES) == {"ant": 0.5, "bee": None, "cat": 1.0, "dog": None}


def test_forgetting_is_the_mean_fall_from_the_best_earlier_accuracy():
    earlier: list[PerClass] = [{"ant": 0.9, "bee": 0.6}, {"ant": 0.7, "bee": 0.8, "cat": None}]

    assert forgetting({"ant": 0.5, "bee": 0.9, "cat": 0.4, "dog": 1.0}, earlier) == pytest.approx(
        ((0.9 - 0.5) + (0.8 - 0.9)) / 2
    )
    assert forgetting({"ant": 0.5}, []) is None


def test_forgetting_counts_old_classes_only():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])

    metrics = measure(truth, predicted, CLASSES, old=("ant",), earlier=[{"ant": 1.0, "bee": 0.0}])

    assert metrics["forgetting"] == 0.5


def test_rows_of_classes_that_the_version_lacks_are_counted_and_left_out():
    metrics = measure(np.array([0, -1, 1]), np.array([0, 0, 0]), CLASSES)

    assert metrics["rows"] == 2
    assert metrics["unknown_rows"] == 1
    assert metrics["accuracy"] == 0.5
    assert metrics["confused"] == [{"class": "bee", "predicted": "ant", "count": 1, "share": 1.0}]


def test_can_be_written_as_json(answers):
    truth, predicted = answers

    assert json.loads(json.dumps(measure(truth, predicted, CLASSES)))["rows"] == 300


def test_accuracy_of_nothing_is_null():
    assert accuracy(np.array([], dtype=np.int64), np.array([], dtype=np.int64)) is None
