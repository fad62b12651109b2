"""The directory of an attempt, `<state>/attempts/<task_key>.<index>.<attempt>/`, and the output in it.

It comes into being when something is written: a command that is silent and needs no files leaves no trace.
Output lies in segments (`stdout.000000`, ...): segment k holds the offsets from k * SEGMENT_BYTES on. What
the keeper had to drop stands in `stdout.gaps`. The keeper writes, the agent reads and deletes what is stored
elsewhere.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from windlass_agent.spool.durable import read_json_lines
from windlass_agent.spool.remove_tree import remove_tree
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import LogStream

SEGMENT_BYTES = 8 << 20


_RESTORED_FROM = 2 << 40
"""Fences from here on are not those of a coordinator's first incarnation."""


def attempt_name(ref: AttemptRef) -> str:
    """Of the attempt's directory. A coordinator that was restored from a backup gives the numbers of attempts
    that were lost with it out again, so from then on the fence belongs to the name."""
    name = f"{ref.task_key}.{ref.index}.{ref.attempt}"
    return name if ref.fence < _RESTORED_FROM else f"{name}.{ref.fence}"


def attempt_path(attempts: Path, ref: AttemptRef) -> Path:
    return attempts / attempt_name(ref)


def remove_attempt(path: Path) -> int:
    """How much could not be removed. Blocks: call it off the event loop. A missing one is fine."""
    return remove_tree(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputGap:
    """Bytes that the command produced and nobody has."""

    offset: int
    length: int
    reason: str

    @property
    def end(self) -> int:
        return self.offset + self.length


class OutputSpool:
    """One output stream of one attempt; offsets count what the command produced."""

    def __init__(self, directory: Path, stream: LogStream, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._name = stream.value
        self._segment_bytes = segment_bytes
        self._gaps: tuple[OutputGap, ...] = ()
        self._gaps_size = 0

    def produced_end(self) -> int:
        """As far as the files show; the exit record has the last word."""
        segments = self._segments()
        stored = segments[-1] * self._segment_bytes + self._size(segments[-1]) if segments else 0
        gaps = self.gaps()
        return max(stored, gaps[-1].end if gaps else 0)

    def read(self, offset: int, limit: int) -> bytes:
        """What follows `offset`, up to `limit` bytes, a segment's end or a gap; b"" = nothing there (yet)."""
        number, position = divmod(offset, self._segment_bytes)
        try:
            fd = os.open(self._path(number), os.O_RDONLY)
        except FileNotFoundError:
            return b""
        try:
            data = os.pread(fd, limit, position)
        finally:
            os.close(fd)
        # Afterwards: what lies behind a gap was written when the gap was, so no hole passes for output.
        for gap in self.gaps():
            if gap.offset <= offset < gap.end:
                return b""
            if gap.offset > offset:
                return data[: gap.offset - offset]
        return data

    def first_from(self, offset: int) -> int | None:
        """Where the next byte lies, or the next gap that was written down; None = there is nothing more."""
        found = [max(gap.offset, offset) for gap in self.gaps() if gap.end > offset]
        for number in self._segments():
            begin = number * self._segment_bytes
            if begin + self._size(number) > offset:
                found.append(max(begin, offset))
                break
        return min(found, default=None)

    def release(self, below: int) -> None:
        """Deletes the segments that end at or before `below`, but the newest: it may be being written."""
        for number in self._segments()[:-1]:
            if (number + 1) * self._segment_bytes <= below:
                self._path(number).unlink(missing_ok=True)

    def release_all(self) -> None:
        """Nothing of it is needed, and nobody writes any more."""
        for number in self._segments():
            self._path(number).unlink(missing_ok=True)

    def gaps(self) -> tuple[OutputGap, ...]:
        """In order; pieces that touch are one gap."""
        path = self._directory / f"{self._name}.gaps"
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return ()
        if size != self._gaps_size:
            self._gaps, self._gaps_size = _read_gaps(path), size
        return self._gaps

    def _segments(self) -> list[int]:
        prefix = f"{self._name}."
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        tails = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        return sorted(int(tail) for tail in tails if tail.isdigit())

    def _size(self, number: int) -> int:
        try:
            return self._path(number).stat().st_size
        except FileNotFoundError:
            return 0

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._name}.{number:06d}"


def _read_gaps(path: Path) -> tuple[OutputGap, ...]:
    gaps: list[OutputGap] = []
    for record in read_json_lines(path).records:
        gap = OutputGap(offset=record["offset"], length=record["length"], reason=record["reason"])
        if gaps and gaps[-1].end == gap.offset:
            before = gaps.pop()
            gap = OutputGap(offset=before.offset, length=before.length + gap.length, reason=gap.reason)
        gaps.append(gap)
    return tuple(gaps)
