"""What `palimpsest forget` is told and how it shows a closure, without a service."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import forget_options, forget_show
from app.cli.options import Exit
from app.cli.show import draw

NOBODY: Any = None  # no service is asked


def named(**given: Any) -> forget_options.Named:
    empty: dict[str, Any] = {
        "subjects": [],
        "subject_file": None,
        "same_person": False,
        "samples": [],
        "classes": [],
        "models": [],
    }
    return forget_options.named(NOBODY, **{**empty, **given})


def test_each_subject_is_a_person_unless_they_are_the_same():
    assert named(subjects=["a", "b"]).targets == ["a", "b"]
    assert named(subjects=["a", "b"]).words == "2 persons"
    same = named(subjects=["a", "b"], same_person=True)
    assert (same.targets, same.words) == ([{"any_of": ["a", "b"]}], "1 person")


def test_a_file_names_a_person_a_line(tmp_path, monkeypatch):
    text = "ada@example.org\tcustomer 7\n\n ben \r\n"
    expected = [{"any_of": ["ada@example.org", "customer 7"]}, "ben"]
    (tmp_path / "names").write_text(text)
    assert named(subject_file=tmp_path / "names").targets == expected
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert named(subject_file=Path("-")).targets == expected
    every = named(subject_file=tmp_path / "names", same_person=True)
    assert every.targets == [{"any_of": ["ada@example.org", "customer 7", "ben"]}]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"subjects": ["a"], "samples": ["b"]},
        {"samples": ["b"], "classes": ["cls_1"]},
        {"samples": ["b"], "same_person": True},
        {"classes": ["gull"]},
    ],
)
def test_it_wants_one_kind_of_target(given):
    with pytest.raises(typer.BadParameter):
        named(**given)


def fields(**given: Any) -> dict[str, Any]:
    empty = {"due": None, "rows": None, "callback_url": None, "callback_secret_file": None}
    return forget_options.fields(NOBODY, [], **{**empty, **given})


def test_a_callback_has_an_address_and_a_secret(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("whsec_AAAA\n")
    given = fields(callback_url="https://a.example/x", callback_secret_file=secret)
    assert given["callback"] == {"url": "https://a.example/x", "secret": "whsec_AAAA"}
    for half in ({"callback_url": "https://a.example/x"}, {"callback_secret_file": secret}):
        with pytest.raises(typer.BadParameter):
            fields(**half)


def test_a_day_is_its_beginning():
    assert fields(due="2026-12-31")["due_at"] == "2026-12-31T00:00:00Z"
    assert fields(due="2026-12-31T12:00:00+01:00")["due_at"] == "2026-12-31T12:00:00+01:00"


def test_a_closure_is_a_tree_that_says_all_of_it(capsys):
    way = {"name": "retrain", "reason": "the network met them", "classes_gone": ["gull"]}
    preview = {
        "found": 1,
        "samples": 3,
        "shared": 1,
        "datasets": [
            {"dataset": "dst_1", "rows": 2, "retained": True, "shards": 1, "features": 1},
            {"dataset": "dst_2", "rows": 1, "retained": False, "shards": 0, "features": 0},
        ],
        "models": [
            {
                "name": "birds [old]",
                "classes": [],
                "guarantee": "exact",
                "seconds": 300.0,
                "versions": [
                    {"id": "ver_1", "number": 1, "aliases": ["production"], "way": way},
                    {"id": "ver_2", "number": 2, "aliases": [], "way": None},
                ],
            }
        ],
        "jobs": [{"job": "job_1", "kind": "update", "state": "queued"}],
        "exports": [
            {
                "version": "ver_1",
                "dataset": None,
                "recipient": None,
                "actor": "key:1",
                "at": "2026-01-02T03:04Z",
            }
        ],
        "exactly_removable": {"rows": 0.5, "persons": None},
        "estimated_seconds": 12.3,
        "uncovered": [{"code": "backups", "detail": "Backups end by themselves."}],
    }
    draw(forget_show.closure(preview, "Forget 1 person:"))
    out = capsys.readouterr().out
    for said in (
        "3 rows, 1 of them names other persons too",
        "dataset dst_1: 2 rows, 2 files written anew",
        "dataset dst_2: 1 row, not stored any more",
        "model birds [old]: 2 versions, exact, about 5 min",
        "version 1 (production): retrain: the network met them; without gull, of which no row is left",
        "version 2: destroyed",
        "job job_1 (update, queued) starts again without them",
        "model birds [old], version 1 on 2026-01-02 to key:1",
        "50% of the rows",
        "takes about 12 s",
        "Backups end by themselves.",
    ):
        assert said in out


@pytest.mark.parametrize(
    ("state", "expected", "said"),
    [
        ("completed", Exit.DONE, "Forgotten. Level E: All."),
        ("completed-with-exceptions", Exit.DONE, "Forgotten but for 1 exception. Level E: All."),
        ("failed", Exit.FAILED, "fgt_1 failed: timeout"),
        ("rejected", Exit.FAILED, "fgt_1 rejected: no duty"),
    ],
)
def test_how_it_ended_is_one_line_and_an_exit_code(capsys, state, expected, said):
    request = {
        "id": "fgt_1",
        "state": state,
        "reason": "no duty" if state == "rejected" else None,
        "exceptions": [{}] if "exceptions" in state else [],
        "items": [{"state": "failed", "detail": {"cause": "timeout"}}] if state == "failed" else [],
    }

    assert forget_show.verdict(request, {"level": "E", "sentence": "All."}) is expected
    assert capsys.readouterr().err == said + "\n"


@pytest.mark.parametrize(
    ("shared", "codes", "said"),
    [
        (0, [], ""),
        (2, [], ", 2 of them name other persons too"),
        (3, ["shared-rows"], "; 3 more, which name other persons too, stay"),
    ],
)
def test_rows_of_others_are_among_those_that_go_or_stay(shared, codes, said):
    assert forget_show._of_others(shared, [{"code": code} for code in codes]) == said


def test_versions_of_several_models_and_classes_are_named_as_what_they_are():
    line = {"number": 1, "replacement": 2, "way": "subtract", "guarantee": "exact"}
    items = [{"kind": "version", "detail": {**line, "model": model}} for model in ("mdl_a", "mdl_b")]
    request = {"scope": "class", "persons": 1, "evidence": {"persons": 1, "rows": 4}, "items": items}
    found = forget_show.summary(request)
    assert found["versions"] == [f"{model}: 1 -> 2 by subtract, exact" for model in ("mdl_a", "mdl_b")]
    named = forget_show.summary(request, {"mdl_a": "birds"})["versions"]
    assert named == ["birds: 1 -> 2 by subtract, exact", "mdl_b: 1 -> 2 by subtract, exact"]
    assert (found["classes"], found["found classes"], found["found rows"]) == (1, 1, 4)
    assert forget_show.summary({**request, "items": items[:1]})["versions"] == ["1 -> 2 by subtract, exact"]
