"""The two forms of archives: what their members are, and which of them are taken."""

import os
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
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_ZIP_ENTRY, _ZIP_LENGTHS = 46, struct.Struct("<3H")
_ZIP_TAIL = 65535 + _ZIP_END.size
_IN_ZIP64 = 0xFFFF_FFFF
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
    if _counted_entries(archive, limit_entries) > limit_entries:
        raise Refused(f"the archive has more than {limit_entries} entries")
    archive.seek(0)
    with zipfile.ZipFile(archive) as packed:
        _refuse_overlaps(packed)
        for member in packed.infolist():
            _unpack_zip_member(packed, member, target)


def _counted_entries(archive: IO[bytes], most: int) -> int:
    """How many its directory has, up to one more than `most`; 0 when it is not found: zipfile says why."""
    size = archive.seek(0, os.SEEK_END)
    archive.seek(max(0, size - _ZIP_TAIL))
    tail = archive.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < _ZIP_END.size:
        return 0
    listed_bytes, end64 = _ZIP_END.unpack_from(tail, end)[5], tail.rfind(b"PK\x06\x06", 0, end)
    if listed_bytes == _IN_ZIP64 and 0 <= end64 <= end - _ZIP64_END.size:
        listed_bytes, end = _ZIP64_END.unpack_from(tail, end64)[8], end64
    start = size - len(tail) + end - listed_bytes
    if start < 0:
        return 0
    archive.seek(start)
    listed = archive.read(listed_bytes)
    count = at = 0
    while count <= most and listed.startswith(b"PK\x01\x02", at) and at + _ZIP_ENTRY <= len(listed):
        at += _ZIP_ENTRY + sum(_ZIP_LENGTHS.unpack_from(listed, at + 28))
        count += 1
    return count


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
