"""What a certificate may say: one level per version, one sentence per level, never more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WEAKEST_FIRST = ("S", "A-", "A", "C", "E")

SENTENCES = {
    "E": "Every version that replaces one made from the erased rows is, bit for bit, the version that "
    "training on the remaining rows gives, with the settings, the network and the rows named in its recipe.",
    "C": "Every version that replaces one made from the erased rows differs from a version trained without "
    "them by no more than the bound stated, under the assumptions stated.",
    "A": "The influence of the erased rows was reduced by an approximate method and measured against a "
    "version trained without them. The measurements are stated and nothing beyond them is claimed.",
    "A-": "The influence of the erased rows was reduced by an approximate method and measured, with no "
    "version trained without them to compare with. The measurements are stated and nothing beyond them is "
    "claimed.",
    "S": "Outputs are suppressed. What was learned from the erased rows may still be in the weights: this is "
    "not forgetting.",
}
NO_VERSION = "No version that the service stores was made from the erased rows: there was nothing to clean."
NOTHING_FOUND = "No stored row names what was to be erased, and no version was made from such a row."
WITHDRAWN = "Every version that was made from the erased rows was withdrawn: none stands in its place."
ROWS_LEFT = (
    "Every stored row that names what was to be erased names others too and stays, as the request asks: no "
    "row was erased, and what was made from these rows is as it was."
)

STATUSES = {
    "C": "certified",
    "A": "approximate_with_reference",
    "A-": "approximate_without_reference",
    "S": "suppressed_only",
}
GUARANTEES = {"exact": "E", "certified": "C", "suppression": "S"}


def level(guarantee: str, checks: Mapping[str, Any], extractor: str) -> str:
    """The level of one replacing version.

    Never E or C over a network that was trained on the erased rows: equality would be false.
    """
    found = GUARANTEES.get(guarantee) or ("A" if checks.get("reference") else "A-")
    return "A-" if extractor == "yes" and found in ("E", "C") else found


def overall(levels: Iterable[str]) -> str | None:
    """The weakest level; none where no version was replaced."""
    found = set(levels)
    return next((name for name in WEAKEST_FIRST if name in found), None)


def claim(
    levels: Sequence[str | None], *, rows: bool, left: bool, rebuilds: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """What may be said of a request: its level, the state in the words of deletion certificates, a sentence.

    `levels` has one of each version that the request touched, None where nothing stands in its place; `rows`
    says whether rows were erased, `left` whether some stay since they name others too.
    """
    found = overall(level for level in levels if level is not None)
    if found is not None:
        return _said(found, status(found, rebuilds), SENTENCES[found])
    if levels:
        return _said(None, "withdrawn", WITHDRAWN)
    if rows:
        return _said(None, "nothing_to_clean", NO_VERSION)
    if left:
        return _said(None, "rows_left", ROWS_LEFT)
    return _said(None, "nothing_to_clean", NOTHING_FOUND)


def status(found: str, rebuilds: Iterable[Mapping[str, Any]]) -> str:
    """The state of a request at a level: exact is verified where rebuilds were there and all were equal."""
    if found != "E":
        return STATUSES[found]
    lines = list(rebuilds)
    verified = bool(lines) and all(line.get("equal") is True for line in lines)
    return "exact_verified" if verified else "exact_by_construction"


def _said(level: str | None, status: str, sentence: str) -> dict[str, Any]:
    return {"level": level, "status": status, "sentence": sentence}
