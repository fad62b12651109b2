"""Moves what a command writes from its pipes to segment files; without room it is dropped, or has to wait.

Pipes, because a plain file would be truncated by a script's `> /dev/stderr`; splice, because the bytes need
not pass through Python. `spool/attempt_dir.py` reads the files.
"""

import errno
import fcntl
import os

from windlass_agent.keeper.record import boot_clock, encode

RETRY_S = 1.0
"""After output could not be stored."""
ROOM_RETRY_S = 0.2
"""After a command's output had no room and the command was made to wait for it."""
LOOK_BYTES = 16 << 20
"""How much lies there is counted anew whenever this much has been stored."""
GAP_PIECE_BYTES = 64 << 20
"""A growing gap is written down this often."""
PIPE_BYTES = 1 << 20
"""Pipe of a command that has filled the usual 64 KiB."""
ATTEMPT_FULL = "the attempt's spool limit was reached"
NODE_FULL = "the node's spool limit was reached"
_FIONREAD = 0x541B


class SlotRoom:
    """How much output may lie on this node: of one attempt, and of this slot (its share of the node's)."""

    def __init__(self, attempt_bytes: int, slot_bytes: int) -> None:
        self.attempt_bytes, self.slot_bytes = attempt_bytes, slot_bytes

    def limit(self) -> int:
        return min(self.attempt_bytes, self.slot_bytes)

    def why_full(self) -> str:
        return ATTEMPT_FULL if self.attempt_bytes <= self.slot_bytes else NODE_FULL


class Spool:
    """Where one command's output goes, and what happens when there is no more room for it."""

    def __init__(self, directory: str, segment_bytes: int, slot: SlotRoom, on_full: str) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.slot = slot
        self.is_patient = on_full == "block"
        """The command waits for room; otherwise what it writes is dropped."""
        self.left = min(slot.limit(), LOOK_BYTES)
        self.stored = 0
        """Bytes of both streams; what the agent has deleted meanwhile counts too."""
        self.refusal = ""
        self.retry_at = 0.0

    def room(self) -> int:
        """Bytes that may be stored now; 0 = none, for the reason in `refusal`."""
        if self.refusal and boot_clock() < self.retry_at:
            return 0
        if self.left <= 0 or self.refusal:
            self.refusal = ""
            self.left = min(self.slot.limit() - self._stored_bytes(), LOOK_BYTES)
            if self.left <= 0:
                self.refuse(self.slot.why_full(), ROOM_RETRY_S if self.is_patient else RETRY_S)
        return max(0, self.left)

    def refuse(self, reason: str, for_s: float = RETRY_S) -> None:
        self.refusal, self.retry_at = reason, boot_clock() + for_s

    def took(self, count: int) -> None:
        self.left -= count
        self.stored += count

    def relent(self) -> None:
        """Its main process has ended: what the pipes hold is taken, and nobody is made to wait any more."""
        if self.is_patient:
            self.is_patient = False
            self.refusal = ""
            self.left = max(0, self.left) + 2 * PIPE_BYTES

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

    def pump(self) -> bool:
        """Moves what is there, once; False = there is no room, and the command has to wait for it.

        To be called only when something is there.
        """
        try:
            room = self.spool.room()
            if room:
                self._store(room)
                return True
            if self.spool.is_patient:
                return False
        except BlockingIOError:
            return True
        except OSError as error:
            self.spool.refuse(f"it could not be stored: {error.strerror}")
            # Only a full disk is waited for: a broken one would hold the command for ever.
            if self.spool.is_patient and error.errno == errno.ENOSPC:
                return False
        self._drop()
        return True

    def drain(self) -> None:
        """Takes the rest. Bounded: a process that escaped could go on writing for ever."""
        self.spool.relent()
        for _ in range(64):
            if not any(fcntl.ioctl(self.pipe, _FIONREAD, bytes(4))):
                return
            self.pump()

    def close(self) -> None:
        try:
            self._write_gap()
        except OSError:
            pass  # The disk is full or the attempt deleted; the exit record's end still shows the loss.
        os.close(self.pipe)
        self.pipe = -1
        self._close_segment()

    def _store(self, room: int) -> None:
        # Not before the gap is written down: a reader would take the hole in the segment for output.
        self._write_gap()
        if self.end >= self.segment_end:
            self._open_segment()
        count = min(room, self.segment_end - self.end, PIPE_BYTES)
        moved = os.splice(self.pipe, self.segment, count, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        self.end += moved
        self.spool.took(moved)
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
            try:
                self._write_gap()
            except OSError:
                pass  # It goes on growing.

    def _write_gap(self) -> None:
        """Whole or not at all; raises OSError, and the gap stays open."""
        if self.gap_from < 0:
            return
        gap = {"offset": self.gap_from, "length": self.end - self.gap_from, "reason": self.gap_reason}
        line = encode(gap).encode() + b"\n"
        fd = self.spool.open(f"{self.name}.gaps", os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            if os.write(fd, line) < len(line):
                os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            os.close(fd)
        self.gap_from = -1
