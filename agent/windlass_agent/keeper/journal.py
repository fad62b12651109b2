"""What a slot has done, written down before anybody is told.

Segments of a fixed size, preallocated: the room for a command's exit record is there before it starts, so
that a full disk cannot swallow a result (protocol.md, section 11). Not synced: a power loss is a new boot.
`spool/slot_dir.py` reads them.
"""

import os

from windlass_agent.keeper.record import Record, encode, reach

RECORD_ROOM = 8192
"""All records of one attempt: intent, start and exit."""


class Journal:
    """Appends to the newest segment; a NUL is the end of one."""

    def __init__(self, directory: str, segment_bytes: int, header: Record) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._header = header
        self._fd = -1
        self._left = 0
        old = (name for name in os.listdir(directory) if name.startswith("journal."))
        self.number = max((int(name.rpartition(".")[2]) for name in old), default=0)

    def reserve(self) -> None:
        """Makes room for all records of one attempt in one segment. Raises OSError when the disk is full."""
        if self._left >= RECORD_ROOM:
            return
        path = f"{self._directory}/journal.{self.number + 1:06d}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._segment_bytes)
        except OSError:
            os.close(fd)
            os.unlink(path)
            raise
        reach("keeper.journal.before_rotate")
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._left, self.number = fd, self._segment_bytes, self.number + 1
        self.append(encode(self._header | {"segment": self.number}).encode() + b"\n")
        reach("keeper.journal.after_rotate")

    def append(self, line: bytes) -> None:
        os.write(self._fd, line)
        self._left -= len(line)
