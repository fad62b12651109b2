"""Where the bytes of a stream lie: offsets count produced bytes, the stored file holds them without holes.

Pure arithmetic. With the gaps [100, 150) and [300, 310), the byte produced at 200 lies at position 150.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from windlass_coordinator.logstore.base import Gap


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """Neighbouring bytes of the stored file."""

    position: int
    length: int


class Layout:
    """The gaps of one stream, in order and apart; a value that is replaced when a gap is added."""

    __slots__ = ("_lost_before", "_offsets", "gaps", "lost_bytes")

    def __init__(self, gaps: Iterable[Gap] = ()) -> None:
        self.gaps = tuple(gaps)
        self._offsets = [gap.offset for gap in self.gaps]
        self._lost_before: list[int] = []
        self.lost_bytes = 0
        """Length of all gaps together."""
        for gap in self.gaps:
            self._lost_before.append(self.lost_bytes)
            self.lost_bytes += gap.length

    def with_gap(self, gap: Gap) -> "Layout":
        """The layout when `gap`, which must lie behind all others, has been added."""
        return Layout((*self.gaps, gap))

    def end(self, stored_bytes: int) -> int:
        """End of the stream in produced bytes when the file holds `stored_bytes`."""
        return stored_bytes + self.lost_bytes

    def position(self, offset: int) -> int:
        """Position in the file of the byte produced at `offset`; inside a gap, of the first byte behind
        it."""
        number = bisect_right(self._offsets, offset) - 1
        if number < 0:
            return offset
        gap = self.gaps[number]
        return gap.offset - self._lost_before[number] + max(0, offset - gap.end)

    def at(self, offset: int, *, end: int) -> StoredRun | Gap:
        """What lies at `offset` of a stream that ends at `end`: bytes up to the next gap, or the rest of a
        gap.

        At the end and beyond it lies a run of length 0.
        """
        number = bisect_right(self._offsets, offset) - 1
        if number >= 0 and offset < self.gaps[number].end:
            gap = self.gaps[number]
            return Gap(offset=offset, length=gap.end - offset, reason=gap.reason)
        following = self._offsets[number + 1] if number + 1 < len(self._offsets) else end
        return StoredRun(position=self.position(offset), length=max(0, min(following, end) - offset))

    def below(self, end: int) -> tuple[Gap, ...]:
        """The gaps that begin below `end`."""
        return self.gaps[: bisect_right(self._offsets, end - 1)]


def gap_line(gap: Gap) -> bytes:
    """One line of a gaps file."""
    text = json.dumps({"offset": gap.offset, "length": gap.length, "reason": gap.reason})
    return text.encode() + b"\n"


def read_gap_lines(content: bytes, *, stored_bytes: int) -> tuple[Layout, int]:
    """The layout that a gaps file tells, and how much of the file is sound.

    A torn last line was never acknowledged, and neither was a gap that lies behind bytes the data file does
    not have: both end the sound part, and what follows is to be cut off.
    """
    gaps: list[Gap] = []
    lost, sound = 0, 0
    for line in content.splitlines(keepends=True):
        gap = _parse_gap_line(line)
        follows = gap is not None and (not gaps or gap.offset >= gaps[-1].end)
        if gap is None or not follows or gap.offset - lost > stored_bytes:
            break
        gaps.append(gap)
        lost += gap.length
        sound += len(line)
    return Layout(gaps), sound


def _parse_gap_line(line: bytes) -> Gap | None:
    if not line.endswith(b"\n"):
        return None
    try:
        fields = json.loads(line)
        gap = Gap(offset=int(fields["offset"]), length=int(fields["length"]), reason=str(fields["reason"]))
    except (ValueError, KeyError, TypeError):
        return None
    return gap if gap.offset >= 0 and gap.length > 0 else None
