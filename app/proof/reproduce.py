"""A certificate's versions made again from exported rows, on any machine, and compared with what it says.

The files are those of `GET /v1/datasets/{dataset}/export`: one NPZ per dataset of a version, the version's
nonce in each. Digests are compared under that nonce, as the certificate carries them.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.methods.base import Context, Snapshot
from app.proof.again import CannotReproduce, Portion, made_again, method_of

ROWS_AT_ONCE = 8_192
MEMBERS = ("x", "label", "classes", "step", "selected", "version", "dataset", "nonce")


@dataclass(frozen=True)
class Verdict:
    """What came of one version: equal, different or cannot."""

    version: str
    number: int
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Exported:
    """One file: the rows of one dataset that one version was made from."""

    path: Path
    version: str
    dataset: str
    nonce: bytes

    def portions(self) -> Iterator[Portion]:
        """Its rows, some thousand at a time."""
        with np.load(self.path, allow_pickle=False) as file:
            found: Mapping[str, NDArray[Any]] = {name: file[name] for name in file.files}
        names = tuple(str(name) for name in found["classes"])
        for at in range(0, len(found["x"]), ROWS_AT_ONCE):
            part = slice(at, at + ROWS_AT_ONCE)
            yield Portion(
                x=found["x"][part],
                labels=found["label"][part].astype(np.int64),
                names=names,
                targets=found["target"][part] if "target" in found else None,
                step=found["step"][part],
                selected=found["selected"][part],
            )


def reproduce(content: Mapping[str, Any], folder: Path) -> list[Verdict]:
    """One verdict per replacing version of a certificate, from the files in a folder."""
    files = _files(folder)
    return [
        _verdict(one["replacing"], [file for file in files if file.version == one["replacing"]["version"]])
        for one in content["versions"]
        if one["replacing"] is not None
    ]


def digests_of(snapshot: Snapshot) -> dict[str, str]:
    """The digests of a version, as its key object has them (`docs/digests.md`)."""
    assert snapshot.head is not None
    found = {"weights": snapshot.head.digest(snapshot.classes)}
    if snapshot.statistics is not None:
        found["statistics"] = snapshot.statistics.digest()
    return found


def blinded(nonce: bytes, digest: str) -> str:
    """SHA-256 of the nonce followed by the 32 bytes of the digest, hex."""
    return hashlib.sha256(nonce + bytes.fromhex(digest)).hexdigest()


def _verdict(replacing: Mapping[str, Any], files: Sequence[Exported]) -> Verdict:
    try:
        different = _compare(replacing, files)
    except CannotReproduce as error:
        return Verdict(replacing["version"], replacing["number"], "cannot", f"{error}")
    outcome = "different" if different else "equal"
    return Verdict(replacing["version"], replacing["number"], outcome, ", ".join(different))


def _compare(replacing: Mapping[str, Any], files: Sequence[Exported]) -> list[str]:
    """The names of what differs."""
    recipe, said = replacing["recipe"], replacing["digests"]
    if not said:
        raise CannotReproduce("the certificate has no digests of it: it was replaced before")
    if method_of(recipe).trains_network:
        raise CannotReproduce("its own step trained the network, which no grid features show")
    _check_files(recipe, files)
    if len({file.nonce for file in files}) != 1:
        raise CannotReproduce("the files do not agree on the version's nonce")

    def portions() -> Iterator[Portion]:
        for file in sorted(files, key=lambda file: file.dataset):
            yield from file.portions()

    found = digests_of(made_again(recipe, portions, Context(memory=1 << 62)))
    mine = {name: blinded(files[0].nonce, digest) for name, digest in found.items()}
    return sorted(name for name in {*mine, *said} if mine.get(name) != said.get(name))


def _check_files(recipe: Mapping[str, Any], files: Sequence[Exported]) -> None:
    """Raise where a dataset that the version learned from has no file, or more than one."""
    needed = {one["dataset"] for one in recipe["datasets"] if one["role"] == "train" and one["rows"]}
    there = [file.dataset for file in files]
    if missing := sorted(needed - set(there)):
        raise CannotReproduce(f"no file holds the rows of {', '.join(missing)}")
    if len(there) != len(set(there)):
        raise CannotReproduce("two files hold the rows of one dataset")


def _files(folder: Path) -> list[Exported]:
    found = []
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                if not set(MEMBERS) <= set(file.files):
                    continue
                version, dataset, nonce = (file[name] for name in ("version", "dataset", "nonce"))
                found.append(Exported(path, str(version), str(dataset), bytes(nonce)))
        except (ValueError, zipfile.BadZipFile, EOFError):
            continue  # another file that lies there
    return found
