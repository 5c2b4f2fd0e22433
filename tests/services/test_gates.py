"""What a version must reach before a job moves an alias to it."""

import pytest

from app.schemas.models import Gates
from app.services.models import gates

METRICS = {
    "forgetting": 0.05,
    "per_class": {"ant": 0.9, "bee": 0.9, "cat": 0.8},
    "rows_per_class": {"ant": 20, "bee": 10, "cat": 5},
}
OLD = ("ant", "bee")


@pytest.mark.parametrize(
    ("gate", "limit", "holds"),
    [
        ("min_old", 0.9, True),
        ("min_old", 0.91, False),
        ("min_new", 0.8, True),
        ("min_new", 0.81, False),
        ("max_forgetting", 0.05, True),
        ("max_forgetting", 0.04, False),
    ],
)
def test_holds_at_its_limit_and_not_beyond(gate, limit, holds):
    (line,) = gates.evaluate(Gates(**{gate: limit}), METRICS, OLD)
    assert (line["gate"], line["limit"], line["holds"]) == (gate, limit, holds)


def test_measures_forgetting_against_the_version_that_the_alias_names():
    named = {"ant": 1.0, "bee": 0.8}  # cat came later
    (line,) = gates.evaluate(Gates(max_forgetting=0.1), METRICS, OLD, named)
    assert (line["value"], line["holds"]) == (pytest.approx(0.0), True)


def test_counts_a_class_that_only_the_aliased_version_knows_as_forgotten():
    named = {"ant": 0.9, "bee": 0.9, "dog": 0.9}
    (line,) = gates.evaluate(Gates(max_forgetting=0.1), METRICS, OLD, named)
    assert (line["value"], line["holds"]) == (pytest.approx(0.3), False)


def test_does_not_hold_where_the_aliased_version_was_never_measured():
    (line,) = gates.evaluate(Gates(max_forgetting=1.0), METRICS, OLD, {})
    assert (line["value"], line["holds"]) == (None, False)


def test_says_nothing_where_no_gate_is_set():
    assert gates.evaluate(Gates(), METRICS, OLD) == []


def test_asks_nothing_of_old_classes_where_there_are_none():
    assert gates.evaluate(Gates(min_old=1.0, max_forgetting=-1.0), METRICS, ()) == []


def test_asks_nothing_of_new_classes_where_none_came():
    assert gates.evaluate(Gates(min_new=1.0), METRICS, ("ant", "bee", "cat")) == []


@pytest.mark.parametrize("gate", ["min_old", "min_new", "max_forgetting"])
def test_does_not_hold_where_nothing_was_measured(gate):
    classes = ("ant", "bee", "cat")
    nothing = {"per_class": dict.fromkeys(classes), "rows_per_class": dict.fromkeys(classes, 0)}
    (line,) = gates.evaluate(Gates(**{gate: 0.0}), nothing, OLD)
    assert (line["value"], line["holds"]) == (None, False)
