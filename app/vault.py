"""Encrypted files and the key objects beside them.

Everything made from rows is AES-256-GCM under a key that is an object of its own (`keys/<id>`), outside the
database and its dumps: deleting the key object destroys, in every copy, what it opens. Digests stand in the
key object and go with it.

A sealed file is `PLM1`, a random prefix of 7 bytes, then chunks of 1 MiB and a 16-byte tag each; the nonce of
a chunk is prefix, counter and a last-chunk mark (the STREAM construction), its associated data the file's id.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import ArtifactCorrupt
from app.files import Files

MAGIC = b"PLM1"
CHUNK = 1 << 20
TAG = 16

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True)
class KeyObject:
    """A key and what may be said of the things it opens, in one object that is destroyed as one."""

    key: bytes | None = None  # 32 bytes; None where only digests are kept
    digests: Mapping[str, str] = field(default_factory=dict)  # name or file id -> SHA-256, hex
    nonce: bytes | None = None  # 32 bytes, of a version: certificates blind its digests with it
    replaces: UUID | None = None  # the file that a rewritten one took the place of
    replaces_key: UUID | None = None  # its key: whoever stopped before destroying it knows what to destroy

    def dump(self) -> bytes:
        return json.dumps(
            {
                "key": _text(self.key),
                "digests": dict(self.digests),
                "nonce": _text(self.nonce),
                "replaces": self.replaces.hex if self.replaces else None,
                "replaces_key": self.replaces_key.hex if self.replaces_key else None,
            }
        ).encode()

    @classmethod
    def parse(cls, raw: bytes) -> KeyObject:
        tree = json.loads(raw)
        replaces, replaces_key = tree["replaces"], tree.get("replaces_key")
        return cls(
            key=_bytes(tree["key"]),
            digests=tree["digests"],
            nonce=_bytes(tree["nonce"]),
            replaces=UUID(hex=replaces) if replaces else None,
            replaces_key=UUID(hex=replaces_key) if replaces_key else None,
        )


class Vault:
    """Seals files under keys, opens them, destroys keys."""

    def __init__(self, files: Files, keys: Files) -> None:
        self.files = files
        self.keys = keys

    def write_key(self, id: UUID, key: KeyObject) -> None:
        """Store a key object; an older one under that id is replaced at once."""
        self.keys.put(id, [key.dump()])

    def key(self, id: UUID) -> KeyObject:
        """The key object of an id; raises `ArtifactCorrupt` where it is gone."""
        try:
            with self.keys.open(id) as file:
                return KeyObject.parse(file.read())
        except FileNotFoundError:
            raise ArtifactCorrupt("the key of a stored file is gone") from None

    def seal(self, id: UUID, chunks: Iterable[Bytes], key: KeyObject) -> KeyObject:
        """Encrypt bytes into file `id`; returns the key object with the file's digest, not yet stored."""
        assert key.key is not None
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for part in _encrypt(chunks, AESGCM(key.key or b""), id):
                digest.update(part)
                yield part

        self.files.put(id, hashed())
        return replace(key, digests={**key.digests, id.hex: digest.hexdigest()})

    def open(self, id: UUID, key: KeyObject) -> bytes:
        """The plain bytes of a sealed file; raises `ArtifactCorrupt` on any difference."""
        try:
            with self.files.open(id) as file:
                sealed = file.read()
        except FileNotFoundError:
            raise ArtifactCorrupt("a stored file is gone") from None
        if hashlib.sha256(sealed).hexdigest() != key.digests.get(id.hex):
            raise ArtifactCorrupt("a stored file does not have the digest it was written with")
        assert key.key is not None
        return b"".join(_decrypt(sealed, AESGCM(key.key), id))

    def seal_value(self, value: bytes, key: KeyObject, id: UUID) -> bytes:
        """Encrypt a short value for a column of row `id`."""
        assert key.key is not None
        nonce = os.urandom(12)
        return nonce + AESGCM(key.key).encrypt(nonce, value, id.bytes)

    def open_value(self, sealed: bytes, key: KeyObject, id: UUID) -> bytes:
        """The value of a column of row `id`; raises `ArtifactCorrupt`."""
        assert key.key is not None
        try:
            return AESGCM(key.key).decrypt(sealed[:12], sealed[12:], id.bytes)
        except InvalidTag:
            raise ArtifactCorrupt("a stored value does not open with its key") from None

    def destroy(self, key_id: UUID, *file_ids: UUID) -> None:
        """Delete a key object, then the files that it opened. Repeating it is harmless."""
        self.keys.delete(key_id)
        for file_id in file_ids:
            self.files.delete(file_id)


def new_key() -> KeyObject:
    """A fresh 256-bit key."""
    return KeyObject(key=os.urandom(32))


def _nonce(prefix: bytes, counter: int, last: bool) -> bytes:
    return prefix + counter.to_bytes(4) + bytes([last])


def _encrypt(chunks: Iterable[Bytes], cipher: AESGCM, id: UUID) -> Iterator[bytes]:
    prefix = os.urandom(7)
    yield MAGIC + prefix
    waiting: Bytes = b""
    for counter, chunk in enumerate(_rechunk(chunks)):
        if counter:
            yield cipher.encrypt(_nonce(prefix, counter - 1, False), waiting, id.bytes)
        waiting, last = chunk, counter
    yield cipher.encrypt(_nonce(prefix, last, True), waiting, id.bytes)


def _decrypt(sealed: bytes, cipher: AESGCM, id: UUID) -> Iterator[bytes]:
    view = memoryview(sealed)
    prefix, body = bytes(view[4:11]), view[11:]
    count = max(1, -(-len(body) // (CHUNK + TAG)))
    try:
        for counter in range(count):
            part = body[counter * (CHUNK + TAG) : (counter + 1) * (CHUNK + TAG)]
            yield cipher.decrypt(_nonce(prefix, counter, counter == count - 1), part, id.bytes)
    except InvalidTag:
        raise ArtifactCorrupt("a stored file does not open with its key") from None


def _rechunk(chunks: Iterable[Bytes]) -> Iterator[Bytes]:
    """Chunks of exactly 1 MiB and a last one that may be shorter, or empty where there is nothing.

    What is larger is cut without a copy.
    """
    held = bytearray()
    some = False
    for chunk in chunks:
        view = memoryview(chunk)
        if held:
            missing = CHUNK - len(held)
            held += view[:missing]
            view = view[missing:]
            if len(held) < CHUNK:
                continue
            yield bytes(held)
            held.clear()
            some = True
        while len(view) >= CHUNK:
            yield view[:CHUNK]
            view = view[CHUNK:]
            some = True
        held += view
    if held or not some:
        yield bytes(held)


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
