"""Members of a zip, checked before any is opened: names, links, number, expansion."""

from __future__ import annotations

import stat
import struct
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from app.errors import BodyTooLarge, UnsafeFormat, ValidationFailed
from app.intake.rows import Source, check_expansion

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt", ".bin", ".py")
ARCHIVES = (".zip", ".npz", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")


DIRECTORY_END = struct.Struct("<4s4H2LH")  # APPNOTE.TXT 4.3.16
DIRECTORY_END_64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
MEMBER_BYTES = 1_024  # of the directory, for one member: 46 and its name


def opened(source: Source) -> ZipFile:
    """The archive, unless its directory is too large to be read into memory at all."""
    size = _directory_bytes(source)
    if size > source.limits.archive_members * MEMBER_BYTES:
        raise BodyTooLarge(f"the archive has more than {source.limits.archive_members} members")
    return ZipFile(source.file)


def _directory_bytes(source: Source) -> int:
    """What the last record of the archive says; 0 where there is none, which `ZipFile` refuses."""
    source.file.seek(max(0, source.bytes - DIRECTORY_END.size - 65_535))
    tail = source.file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < DIRECTORY_END.size:
        return 0
    size = int(DIRECTORY_END.unpack_from(tail, at)[5])
    at64 = tail.rfind(b"PK\x06\x06", 0, at)
    if at64 >= 0 and at - at64 >= DIRECTORY_END_64.size:
        size = max(size if size < 2**32 - 1 else 0, int(DIRECTORY_END_64.unpack_from(tail, at64)[8]))
    return size


def members(archive: ZipFile, source: Source) -> list[ZipInfo]:
    """The files of an archive; raises on anything that could leave the archive, run, or grow without end.

    What a member may expand to is what its entry says (zipfile reads no byte more), so the sum of these is
    the whole expansion.
    """
    limits = source.limits
    infos = archive.infolist()
    if len(infos) > limits.archive_members:
        raise BodyTooLarge(f"the archive has more than {limits.archive_members} members")
    files = [info for info in infos if not info.is_dir()]
    for number, info in enumerate(infos):
        _check(info, number)
    if len({info.filename for info in files}) != len(files):
        raise ValidationFailed("the archive has two members of one name")
    check_expansion(sum(info.file_size for info in files), source)
    return files


def _check(info: ZipInfo, number: int) -> None:
    parts = info.filename.replace("\\", "/").split("/")
    if info.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise UnsafeFormat(f"member {number} of the archive has a name that leaves it")
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeFormat(f"member {number} of the archive is a link or a special file")
    if info.flag_bits & 1:
        raise ValidationFailed(f"member {number} of the archive is encrypted")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValidationFailed(f"member {number} of the archive is neither stored nor deflated")
    lower = info.filename.lower()
    if lower.endswith(PICKLES):
        raise UnsafeFormat(f"member {number} of the archive is of a kind that can carry code")
    if lower.endswith(ARCHIVES):
        raise UnsafeFormat(f"member {number} of the archive is an archive itself")
