"""Unpacks a package; run as a program of its own, with limits, because archives are hostile input.

    python -I -S unpack.py ARCHIVE DIRECTORY LIMIT_BYTES LIMIT_ENTRIES

Ends with 0; or with 2 and one line on standard output that says what is wrong with the archive; or with 3
when the machine is at fault. Standard library only: it starts with `-S` and holds nothing of the agent.
Members are judged by our own rules, not by tarfile's filters, whose holes were found one after another: only
directories, regular files, and links that stay inside are taken; modes keep their execute bits and nothing
above them; output bytes are counted as they are written, whatever the headers say.
"""

import gzip
import os
import resource
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20
_ADDRESS_SPACE = 1 << 30
_CPU_SECONDS = 3600
_NAME_LIMIT = 4096
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
)


class Refused(Exception):
    """The archive is not acceptable; the message names the member."""


class Target:
    """The directory that is filled, and what may still be put into it."""

    def __init__(self, directory: Path, *, limit_bytes: int, limit_entries: int) -> None:
        self._root = directory.resolve()
        self._bytes_left = self._limit_bytes = limit_bytes
        self._entries_left = self._limit_entries = limit_entries

    def directory(self, name: str) -> None:
        self._count(name)
        self._place(name).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: IO[bytes], mode: int) -> None:
        self._count(name)
        path = self._place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o644 | (mode & 0o111)), "wb") as out:
            while chunk := content.read(_CHUNK):
                self._bytes_left -= len(chunk)
                if self._bytes_left < 0:
                    raise Refused(f"{name!r}: the archive unpacks to more than {self._limit_bytes} bytes")
                out.write(chunk)

    def symbolic_link(self, name: str, target: str) -> None:
        self._count(name)
        path = self._place(name)
        if os.path.isabs(target):
            raise Refused(f"{name!r}: is a link to the absolute path {target!r}")
        # '..' behind a name could step up from wherever that name, a link itself, leads.
        if _climbs_late(target) or not _is_inside(os.path.normpath(path.parent / target), self._root):
            raise Refused(f"{name!r}: is a link that leads out of the package, to {target!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def hard_link(self, name: str, target: str) -> None:
        self._count(name)
        path, existing = self._place(name), self._place(target)
        if not existing.is_file() or existing.is_symlink():
            raise Refused(f"{name!r}: is a hard link to {target!r}, which is no earlier file of it")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.hardlink_to(existing)

    def _count(self, name: str) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise Refused(f"{name!r}: the archive has more than {self._limit_entries} entries")

    def _place(self, name: str) -> Path:
        """Where a member goes. No directory on the way may be a link: what it leads to could change later."""
        if len(name) > _NAME_LIMIT or "\0" in name:
            raise Refused(f"{name[:100]!r}: is no name for a file")
        if name.startswith("/"):
            raise Refused(f"{name!r}: is an absolute name")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Refused(f"{name!r}: contains '..'")
        path = self._root
        for part in parts[:-1]:
            path = path / part
            if path.is_symlink():
                raise Refused(f"{name!r}: lies behind the link {str(path.relative_to(self._root))!r}")
        return path / parts[-1] if parts else self._root


def main(arguments: list[str]) -> int:
    archive, directory, limit_bytes, limit_entries = arguments
    os.umask(0o022)
    _limit_ourselves()
    target = Target(Path(directory), limit_bytes=int(limit_bytes), limit_entries=int(limit_entries))
    try:
        unpack(Path(archive), target)
    except Refused as problem:
        print(problem)
        return 2
    except MemoryError:
        print("the archive needs more memory to unpack than it may have")
        return 2
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as problem:
        print(f"the archive has a file and a directory of one name: {problem.filename!r}")
        return 2
    except OSError as problem:
        print(f"could not write: {problem.strerror}")
        return 3
    return 0


def unpack(archive: Path, target: Target) -> None:
    """Told apart by content, not by name. Raises Refused."""
    with archive.open("rb") as file:
        magic = file.read(4)
    try:
        if magic == b"":
            raise Refused("the archive is empty")
        if magic.startswith(b"\x1f\x8b"):
            _unpack_tar(archive, target)
        elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
            _unpack_zip(archive, target)
        else:
            raise Refused("the archive is neither tar.gz nor zip")
    except _DAMAGE as bad:
        raise Refused(f"the archive is damaged: {bad}") from bad


def _unpack_tar(archive: Path, target: Target) -> None:
    # tarfile's own reading of gzip streams checks no checksum.
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            _unpack_tar_member(tar, member, target)
        stream.read(_CHUNK)  # to the end of the padding: only there the checksum is looked at


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


def _unpack_zip(archive: Path, target: Target) -> None:
    with zipfile.ZipFile(archive) as packed:
        _refuse_overlaps(packed)
        for member in packed.infolist():
            _unpack_zip_member(packed, member, target)


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
        if member.file_size > _NAME_LIMIT:
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


def _climbs_late(target: str) -> bool:
    parts = [part for part in target.split("/") if part not in ("", ".")]
    leading = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    return ".." in parts[leading:]


def _is_inside(path: str, root: Path) -> bool:
    return path == str(root) or path.startswith(f"{root}{os.sep}")


def _limit_ourselves() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
