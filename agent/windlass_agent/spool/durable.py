"""Files that survive a kill -9 of any process: whole or not at all.

Nothing is synced (decision D6): the page cache outlives a process, and after a power loss the attempts of the
boot before are lost anyway.
"""

import errno
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JsonRecord = dict[str, Any]
"""As JSON gives it."""
NO_RECORD = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading a record raises that was damaged and is JSON all the same."""


def write_whole(path: Path, data: bytes) -> None:
    """Readers see the old content or the new one."""
    new = path.with_name(path.name + ".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    new.replace(path)


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
    """What was preallocated and not written yet begins with the first NUL."""
    records = []
    damaged = 0
    for line in data.partition(b"\0")[0].splitlines(keepends=True):
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
    """Appends records; each call is one write(2), so that a batch is there or is not."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.size_bytes = os.fstat(self._fd).st_size
        self._end_torn_line()

    def append(self, records: Iterable[JsonRecord]) -> None:
        """Raises OSError when the disk is full; the torn line is told from a record by its reader."""
        data = b"".join(json_line(record) for record in records)
        written = os.write(self._fd, data)
        self.size_bytes += written
        if written < len(data):
            self._end_torn_line()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.close(self._fd)

    def _end_torn_line(self) -> None:
        """The next record must not become the end of a damaged one."""
        if self.size_bytes and os.pread(self._fd, 1, self.size_bytes - 1) != b"\n":
            self.size_bytes += os.write(self._fd, b"\n")
