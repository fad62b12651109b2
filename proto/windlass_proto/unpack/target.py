"""The directory that is filled, the current one, and the rules for what may be put into it.

Everything is relative to it: the program may not even be able to look at the directories above.
"""

import os
from pathlib import Path
from typing import Protocol

_CHUNK = 1 << 20
_NAME_LIMIT = 4096
_HERE = Path(".")


class Refused(Exception):
    """The archive is not acceptable; the message names the member."""


class Source(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Target:
    def __init__(self, *, limit_bytes: int, limit_entries: int) -> None:
        self._bytes_left = self._limit_bytes = limit_bytes
        self._entries_left = self._limit_entries = limit_entries

    def directory(self, name: str) -> None:
        self._count(name)
        self._place(name).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: Source, mode: int) -> None:
        self._count(name)
        path = self._free_place(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o644 | (mode & 0o111)), "wb") as out:
            while chunk := content.read(_CHUNK):
                self._bytes_left -= len(chunk)
                if self._bytes_left < 0:
                    raise Refused(f"{name!r}: the archive unpacks to more than {self._limit_bytes} bytes")
                out.write(chunk)

    def symbolic_link(self, name: str, target: str) -> None:
        self._count(name)
        if not target or "\0" in target or len(target) > _NAME_LIMIT:
            raise Refused(f"{name!r}: is a link to no possible path")
        if os.path.isabs(target):
            raise Refused(f"{name!r}: is a link to the absolute path {target!r}")
        path = self._place(name)
        # '..' behind a name could step up from wherever that name, a link itself, leads.
        if _climbs_late(target) or _is_outside(os.path.normpath(path.parent / target)):
            raise Refused(f"{name!r}: is a link that leads out of the package, to {target!r}")
        self._free_place(name).symlink_to(target)

    def hard_link(self, name: str, target: str) -> None:
        self._count(name)
        path, existing = self._place(name), self._place(target)
        if path == existing or not existing.is_file() or existing.is_symlink():
            raise Refused(f"{name!r}: is a hard link to {target!r}, which is no earlier file of it")
        self._free_place(name).hardlink_to(existing)

    def _count(self, name: str) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise Refused(f"{name[:100]!r}: the archive has more than {self._limit_entries} entries")

    def _free_place(self, name: str) -> Path:
        """`_place`, with its directory made and an earlier member of the name gone."""
        path = self._place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path

    def _place(self, name: str) -> Path:
        """Where a member goes. No directory on the way may be a link: what it leads to could change later."""
        if len(name) > _NAME_LIMIT or "\0" in name:
            raise Refused(f"{name[:100]!r}: is no name for a file")
        if name.startswith("/"):
            raise Refused(f"{name!r}: is an absolute name")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Refused(f"{name!r}: contains '..'")
        path = _HERE
        for part in parts[:-1]:
            path = path / part
            if path.is_symlink():
                raise Refused(f"{name!r}: lies behind the link {str(path)!r}")
        return path / parts[-1] if parts else _HERE


def _climbs_late(target: str) -> bool:
    parts = [part for part in target.split("/") if part not in ("", ".")]
    leading = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    return ".." in parts[leading:]


def _is_outside(path: str) -> bool:
    return path == ".." or path.startswith(("../", "/"))
