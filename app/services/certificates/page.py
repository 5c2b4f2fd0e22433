"""A certificate for people: one page of HTML that prints well. No scripts, nothing loaded, all escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

Json = dict[str, Any]
Pair = tuple[str, object]

STYLE = """
body { font: 10pt/1.4 Georgia, serif; max-width: 46em; margin: 2em auto; padding: 0 1em; color: #111 }
h1 { font-size: 16pt; margin: 0 0 .2em } h2 { font-size: 11pt; margin: 1.2em 0 .3em }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .15em .6em .15em 0; border-bottom: 1px solid #ccc }
th { font-weight: normal; color: #555 } ul { margin: 0; padding-left: 1.2em }
code { font: 8pt monospace; overflow-wrap: anywhere } .claim { border: 1px solid #111; padding: .6em .8em }
@page { size: A4; margin: 16mm }
@media print { body { margin: 0; max-width: none } tr { break-inside: avoid } }
"""


def render(content: Json) -> str:
    """The page of a certificate's content."""
    request, claim = content["request"], content["claim"]
    parts = [
        "<h1>Certificate of erasure</h1>",
        _pairs(_head(content)),
        f'<p class="claim"><b>{_level(claim)}</b> {escape(claim["sentence"])}</p>',
        _section("What was asked and found", _pairs(_counts(content))),
        _section("Versions", _table(VERSION_COLUMNS, map(_version, content["versions"]))),
        _section("Stages", _table(("stage", "started", "finished"), _stages(content["stages"]))),
        _section("Not covered", _list(content["uncovered"])),
        _section("Ends later", _list(f"{one['what']} Until {one['until']}." for one in content["residuals"])),
        _section("Exceptions", _list(_sentence(one) for one in content["exceptions"])),
        _section("Copies that had left", _table(EXPORT_COLUMNS, map(_export, content["exports"]))),
        _section("Rebuilt from the stored rows", _list(_sentence(one) for one in content["rebuilds"])),
        _section("Signature", _pairs(_signature(content))),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Certificate {escape(content['id'])} of {escape(request['id'])}</title>"
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


VERSION_COLUMNS = ("replaced", "by", "way", "guarantee", "level", "network saw the erased")
EXPORT_COLUMNS = ("when", "what", "recipient")


def _head(content: Json) -> list[Pair]:
    request = content["request"]
    return [
        ("certificate", content["id"]),
        ("issued", content["issued_at"]),
        ("request", request["id"]),
        ("its name at the caller's", request["external_id"]),
        ("regulation", request["regulation"]),
        ("submitted, due", f"{request['submitted_at']}, {request['due_at']}"),
        ("scope", request["scope"]),
    ]


def _level(claim: Json) -> str:
    return escape(f"Level {claim['level']}." if claim["level"] else "No claim.")


def _counts(content: Json) -> list[Pair]:
    asked, found = content["asked"], content["found"]
    return [(f"asked: {name}", value) for name, value in asked.items()] + [
        (f"found: {name.replace('_', ' ')}", value) for name, value in found.items()
    ]


def _version(one: Json) -> Sequence[object]:
    replacing, model = one["replacing"], one["model"]
    by = f"{replacing['number']} ({replacing['version']})" if replacing else "withdrawn"
    network = (replacing or {}).get("network") or one["network_before"]
    old = f"{one['replaced']['number']} ({one['replaced']['version']}) of {model}"
    return (old, by, one["way"], one["guarantee"], one["level"], network["extractor_trained_on_subject"])


def _stages(stages: Json) -> Iterable[Sequence[object]]:
    found = sorted(stages.items(), key=lambda item: item[1].get("started_at") or "")
    return [(name, times.get("started_at"), times.get("finished_at")) for name, times in found]


def _export(one: Json) -> Sequence[object]:
    return (one["at"], one["version"] or one["dataset"], one["recipient"] or "not named")


def _signature(content: Json) -> list[Pair]:
    return [
        ("ledger", content["ledger"]["head"]["sequence"]),
        ("audit chain", content["audit"]["hash"]),
        ("software", f"{content['software']['name']} {content['software']['version']}"),
        ("key", f"{content['signed_by']['key']} ({content['signed_by']['algorithm']})"),
        ("signature", content["signature"]),
    ]


def _sentence(one: object) -> str:
    if not isinstance(one, dict):
        return str(one)
    return "; ".join(f"{name}: {value}" for name, value in one.items())


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}"


def _pairs(pairs: Iterable[Pair]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in pairs)
    return f"<table>{rows}</table>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    return f"<table><tr>{head}</tr>{body}</table>" if body else "<p>None.</p>"


def _list(sentences: Iterable[str]) -> str:
    body = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{body}</ul>" if body else "<p>None.</p>"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    text = escape(str(value))
    return f"<code>{text}</code>" if len(text) > 60 else text
