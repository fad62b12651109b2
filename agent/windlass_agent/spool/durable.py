"""Files that survive a kill -9 of any process: whole or not at all.

Nothing is synced (decision D6): the page cache outlives a process, and after a power loss the attempts of the
boot before are lost anyway.
"""

import errno
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JsonRecord = dict[str, Any]
"""As JSON gives it."""
NO_RECORD = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading a record raises that was damaged and is JSON all the same."""
_PIECE_BYTES = 64 << 10


def write_whole(path: Path, data: bytes) -> None:
    """Readers see the old content or the new one. Raises OSError; the old one stays then."""
    new = path.with_name(path.name + ".new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def check_numbers(*numbers: object) -> None:
    """Raises ValueError for what is no number that a record may hold."""
    if not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
        raise ValueError("a damaged record")


def json_line(record: JsonRecord) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLines:
    """What a file of records holds."""

    records: tuple[JsonRecord, ...]
    damaged: int
    """Lines that are no record: cut off by a crash, or overwritten."""


def read_json_lines(path: Path) -> JsonLines:
    """A missing file is empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return JsonLines(records=(), damaged=0)
    return parse_json_lines(data)


def parse_json_lines(data: bytes) -> JsonLines:
    """What was preallocated and not written yet are the NULs at the end; others are damage."""
    records = []
    damaged = 0
    for line in data.rstrip(b"\0").splitlines(keepends=True):
        record = _parse(line)
        if record is None:
            damaged += 1
        else:
            records.append(record)
    return JsonLines(records=tuple(records), damaged=damaged)


def _parse(line: bytes) -> JsonRecord | None:
    """A line without its end was cut off, whatever it looks like."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


class JsonLog:
    """Appends records; each call is one write, so that a batch is there or is not.

    Some room behind the end is taken in advance: on a full disk there is still a line to be written.
    """

    def __init__(self, path: Path, *, reserve_bytes: int = 64 << 10) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._reserve_bytes = reserve_bytes
        self._allocated = os.fstat(self._fd).st_size
        self.size_bytes = self._end_of_records()
        self._end_torn_line()
        self._reserve()

    def append(self, records: Iterable[JsonRecord]) -> None:
        """Raises OSError when the disk is full or broken; nothing is written then."""
        data = b"".join(json_line(record) for record in records)
        written = os.pwrite(self._fd, data, self.size_bytes)
        if written < len(data):
            os.ftruncate(self._fd, self.size_bytes)
            self._allocated = self.size_bytes
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size_bytes += written
        self._reserve()

    def close(self) -> None:
        """What was taken in advance is given back."""
        with suppress(OSError):
            os.ftruncate(self._fd, self.size_bytes)
        os.close(self._fd)

    def _reserve(self) -> None:
        if self._allocated - self.size_bytes >= self._reserve_bytes // 2:
            return
        # Without room it goes on as long as it goes.
        with suppress(OSError):
            os.posix_fallocate(self._fd, self.size_bytes, self._reserve_bytes)
            self._allocated = self.size_bytes + self._reserve_bytes

    def _end_of_records(self) -> int:
        """What was taken in advance reads as NULs."""
        end = self._allocated
        while end:
            piece = os.pread(self._fd, min(end, _PIECE_BYTES), max(0, end - _PIECE_BYTES))
            kept = len(piece.rstrip(b"\0"))
            if kept:
                return end - len(piece) + kept
            end -= len(piece)
        return 0

    def _end_torn_line(self) -> None:
        """The next record must not become the end of a damaged one."""
        if self.size_bytes and os.pread(self._fd, 1, self.size_bytes - 1) != b"\n":
            self.size_bytes += os.pwrite(self._fd, b"\n", self.size_bytes)
