"""Bytes under an id: private, durable, never half there."""

import stat
import uuid

import pytest

from app.files import LocalFiles


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_keeps_files_from_other_users(tmp_path):
    files, id = LocalFiles(tmp_path / "keys"), uuid.uuid4()
    files.put(id, [b"secret"])

    path = files._path(id)

    assert mode(path) == 0o600
    assert {mode(folder) for folder in (path.parent, files.temporary, files.root)} == {0o700}


def test_leaves_nothing_of_a_write_that_fails(tmp_path):
    files, id = LocalFiles(tmp_path), uuid.uuid4()

    def broken():
        yield b"half"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        files.put(id, broken())

    with pytest.raises(FileNotFoundError):
        files.open(id)
    assert list(files.temporary.iterdir()) == []


def test_deletes_twice_without_complaint(tmp_path):
    files, id = LocalFiles(tmp_path), uuid.uuid4()
    files.put(id, [b"bytes"])

    files.delete(id)
    files.delete(id)

    assert list(files.older_than(-1)) == []
