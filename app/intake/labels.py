"""Labels: what a file calls a class, and the key that stands for it."""

from __future__ import annotations

from typing import Any

from app.errors import ValidationFailed
from app.schemas.base import display_name


class Labels(dict[Any, int]):
    """From a label as sent to the index of its key in `names`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.names: list[str] = []
        self._most = most
        self._index: dict[str, int] = {}

    def __missing__(self, label: Any) -> int:
        key = label_key(label)
        if key not in self._index:
            if len(self.names) >= self._most:
                raise ValidationFailed(f"there are more than {self._most} classes", pointer="/label")
            self._index[key] = len(self.names)
            self.names.append(key)
        if len(self) < 4 * self._most:
            self[label] = self._index[key]
        return self._index[key]


def label_key(label: Any) -> str:
    """The key of a label: NFC and trimmed, or the decimal string of an integer."""
    if label is None or label == "":
        raise ValidationFailed("a row has no label where others have one", pointer="/label")
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise ValidationFailed("a label is a string or an integer", pointer="/label")
    try:
        return display_name(str(label))
    except ValueError as error:
        raise ValidationFailed(f"label: {error}", pointer="/label") from None
