"""The two forms of archives: what their members are, and which of them are taken."""

import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from types import ModuleType
from typing import IO

from windlass_proto.unpack.streams import DAMAGE as STREAM_DAMAGE
from windlass_proto.unpack.streams import Counted, plain_bytes
from windlass_proto.unpack.target import Refused, Source, Target

_CHUNK = 1 << 20
_LINK_LIMIT = 4096
_HEADERS_OF_ENTRY = 4 << 10
"""Bytes of a tar that a member with a long name takes besides its content."""
_BLOCK = 1 << 20
"""Of padding at the end, at the very most."""
_TAR_MARK = slice(257, 262)
_START = 512
_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP_TAIL = 65535 + _ZIP_END.size
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    ValueError,
    NotImplementedError,
    struct.error,
    *STREAM_DAMAGE,
)


def unpack(
    archive: IO[bytes], target: Target, *, limit_bytes: int, limit_entries: int, zstd: ModuleType | None
) -> None:
    """Told apart by content, not by name. Raises Refused."""
    start = archive.read(_START)
    archive.seek(0)
    if not start:
        raise Refused("the archive is empty")
    try:
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            _unpack_zip(archive, target, limit_entries)
            return
        source = plain_bytes(archive, start, zstd)
        if source is None and start[_TAR_MARK] != b"ustar":
            raise Refused("the archive is neither a tar (plain, .gz, .bz2, .xz or .zst) nor a zip")
        # Also what lies between the members and behind them is counted.
        around_bytes = _BLOCK + limit_entries * _HEADERS_OF_ENTRY
        counted = Counted(source or archive, limit_bytes=limit_bytes, around_bytes=around_bytes)
        _unpack_tar(counted, target)
    except DAMAGE as bad:
        raise Refused(f"the archive is damaged: {bad}") from bad
    except OSError as problem:
        if problem.errno is None:  # of bz2, about its content
            raise Refused(f"the archive is damaged: {problem}") from problem
        raise


def _unpack_tar(stream: Source, target: Target) -> None:
    # tarfile's own reading of compressed streams checks no checksum.
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as tar:  # type: ignore[call-overload]  # typeshed wants a whole file
        for member in tar:
            _unpack_tar_member(tar, member, target)
    while stream.read(_CHUNK):
        pass  # to the end of the padding: only there the checksum is looked at


def _unpack_tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Target) -> None:
    name = member.name
    if member.mode & (stat.S_ISUID | stat.S_ISGID) and not member.isdir():
        raise Refused(f"{name!r}: is set-uid or set-gid")
    if member.isdir():
        target.directory(name)
    elif member.issparse():
        raise Refused(f"{name!r}: is a sparse file")
    elif member.isreg():
        content = tar.extractfile(member)
        if content is None or member.size < 0:
            raise Refused(f"{name!r}: has no readable content")
        target.file(name, content, member.mode)
    elif member.issym():
        target.symbolic_link(name, member.linkname)
    elif member.islnk():
        target.hard_link(name, member.linkname)
    else:
        raise Refused(f"{name!r}: is a device, a fifo or something else that is no file")


def _unpack_zip(archive: IO[bytes], target: Target, limit_entries: int) -> None:
    # Before zipfile makes an object of each: a million of them are half a gigabyte.
    if _told_entries(archive) > limit_entries:
        raise Refused(f"the archive has more than {limit_entries} entries")
    with zipfile.ZipFile(archive) as packed:
        _refuse_overlaps(packed)
        for member in packed.infolist():
            _unpack_zip_member(packed, member, target)


def _told_entries(archive: IO[bytes]) -> int:
    """How many there are by the size of the directory at the end, which zipfile goes by too."""
    size = archive.seek(0, 2)
    archive.seek(max(0, size - _ZIP_TAIL))
    tail = archive.read()
    archive.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _ZIP_END.size:
        return 0  # zipfile says what is wrong with it
    entries: int = _ZIP_END.unpack_from(tail, at)[4]
    zip64 = tail.rfind(b"PK\x06\x06", 0, at)
    if zip64 >= 0 and at - zip64 >= 40:
        entries = max(entries, struct.unpack_from("<Q", tail, zip64 + 32)[0])
    return entries


def _unpack_zip_member(packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Target) -> None:
    name = member.filename
    mode = member.external_attr >> 16
    if member.flag_bits & 0x1:
        raise Refused(f"{name!r}: is encrypted")
    if mode & (stat.S_ISUID | stat.S_ISGID) and not member.is_dir():
        raise Refused(f"{name!r}: is set-uid or set-gid")
    kind = stat.S_IFMT(mode)
    if member.is_dir():
        target.directory(name)
    elif kind == stat.S_IFLNK:
        if member.file_size > _LINK_LIMIT:
            raise Refused(f"{name!r}: is a link with a target that is too long")
        target.symbolic_link(name, packed.read(member).decode())
    elif kind in (0, stat.S_IFREG):
        with packed.open(member) as content:
            target.file(name, content, mode)
    else:
        raise Refused(f"{name!r}: is a device, a fifo or something else that is no file")


def _refuse_overlaps(packed: zipfile.ZipFile) -> None:
    """Members that share compressed bytes: the trick of the bombs that beat any limit on the ratio of one."""
    end = 0
    for start, length, name in sorted(_extents(packed)):
        if start < end:
            raise Refused(f"{name!r}: shares its bytes with another member")
        end = start + length


def _extents(packed: zipfile.ZipFile) -> Iterator[tuple[int, int, str]]:
    for member in packed.infolist():
        yield member.header_offset, 30 + member.compress_size, member.filename
