"""Moves what a command writes from its pipes to segment files, and drops it when there is no room.

Pipes, because a plain file would be truncated by a script's `> /dev/stderr`; splice, because the bytes need
not pass through Python. `spool/attempt_dir.py` reads the files.
"""

import fcntl
import os

from windlass_agent.keeper.record import boot_clock, encode

RETRY_S = 1.0
"""After output could not be stored."""
GAP_PIECE_BYTES = 64 << 20
"""A growing gap is written down this often."""
PIPE_BYTES = 1 << 20
"""Pipe of a command that has filled the usual 64 KiB."""
_FIONREAD = 0x541B


class Spool:
    """Where one command's output goes, and how much of it may lie there."""

    def __init__(self, directory: str, segment_bytes: int, limit_bytes: int) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.limit_bytes = self.left = limit_bytes
        self.refusal = ""
        self.retry_at = 0.0

    def room(self) -> int:
        """Bytes that may be stored now; 0 = drop them, for the reason in `refusal`."""
        if self.refusal and boot_clock() < self.retry_at:
            return 0
        if self.left <= 0 or self.refusal:
            self.refusal = ""
            self.left = self.limit_bytes - self._stored_bytes()
            if self.left <= 0:
                self.refuse("the attempt's spool limit was reached")
        return max(0, self.left)

    def refuse(self, reason: str) -> None:
        self.refusal, self.retry_at = reason, boot_clock() + RETRY_S

    def open(self, name: str, flags: int) -> int:
        path, flags = f"{self.directory}/{name}", flags | os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            return os.open(path, flags, 0o600)

    def _stored_bytes(self) -> int:
        """What the agent has not fetched and deleted yet, in blocks: a segment may begin with a hole."""
        try:
            with os.scandir(self.directory) as entries:
                return sum(entry.stat().st_blocks * 512 for entry in entries if entry.name.startswith("std"))
        except OSError:
            return 0


class Stream:
    """Moves one pipe of a command to segment files; `end` counts what the command produced."""

    def __init__(self, name: str, pipe: int, spool: Spool, null: int) -> None:
        self.name = name
        self.pipe = pipe
        self.spool = spool
        self.null = null
        self.segment = self.gap_from = -1
        self.gap_reason = ""
        self.end = self.segment_end = 0
        self.is_wide = False

    def pump(self) -> None:
        """Moves what is there, once. To be called only when something is there."""
        try:
            room = self.spool.room()
            if room:
                self._store(room)
                return
        except BlockingIOError:
            return
        except OSError as error:
            self.spool.refuse(f"it could not be stored: {error.strerror}")
        self._drop()

    def drain(self) -> None:
        """Takes the rest. Bounded: a process that escaped could go on writing for ever."""
        for _ in range(64):
            if not any(fcntl.ioctl(self.pipe, _FIONREAD, bytes(4))):
                return
            self.pump()

    def close(self) -> None:
        self._write_gap()
        os.close(self.pipe)
        self.pipe = -1
        self._close_segment()

    def _store(self, room: int) -> None:
        if self.gap_from >= 0:
            self._write_gap()
        if self.end >= self.segment_end:
            self._open_segment()
        count = min(room, self.segment_end - self.end, PIPE_BYTES)
        moved = os.splice(self.pipe, self.segment, count, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        self.end += moved
        self.spool.left -= moved
        if moved >= 65536 and not self.is_wide:
            self.is_wide = True
            try:
                fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            except OSError:
                pass  # The user's share of pipe memory is used up; it works, only slower.

    def _open_segment(self) -> None:
        """Segment k holds the offsets from k * segment_bytes on, also behind a gap."""
        self._close_segment()
        number, position = divmod(self.end, self.spool.segment_bytes)
        self.segment = self.spool.open(f"{self.name}.{number:06d}", 0)
        if position:
            os.lseek(self.segment, position, os.SEEK_SET)
        self.segment_end = (number + 1) * self.spool.segment_bytes

    def _close_segment(self) -> None:
        if self.segment >= 0:
            os.close(self.segment)
        self.segment, self.segment_end = -1, 0

    def _drop(self) -> None:
        if self.gap_from < 0:
            self.gap_from, self.gap_reason = self.end, self.spool.refusal
            self._close_segment()
        try:
            self.end += os.splice(self.pipe, self.null, PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return
        if self.end - self.gap_from >= GAP_PIECE_BYTES:
            self._write_gap()

    def _write_gap(self) -> None:
        if self.gap_from < 0:
            return
        gap = {"offset": self.gap_from, "length": self.end - self.gap_from, "reason": self.gap_reason}
        self.gap_from = -1
        try:
            fd = self.spool.open(f"{self.name}.gaps", os.O_APPEND)
            os.write(fd, encode(gap).encode() + b"\n")
            os.close(fd)
        except OSError:
            pass  # The disk is full or the attempt deleted; the exit record's end still shows the loss.
