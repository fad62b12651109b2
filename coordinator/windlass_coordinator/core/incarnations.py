"""Which incarnation a restored store begins (decision 0008).

A fence is (incarnation << 40) + n. What was issued between the backup and the loss is not in the backup, so
one more than the stored number is not enough: the second restore of the same backup would issue the fences of
the first one again.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

INCARNATION_END = 1 << 23
"""Fences are signed 64-bit columns."""

_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
_RESERVED_FOR_COUNTING = 1 << 16
"""A clock that is years ahead must not use up all numbers."""


def next_incarnation(issued: Iterable[int], *, now: datetime) -> int | None:
    """Above every issued number and, as far as the clock is right, above every one of an earlier minute; None
    = there is none left."""
    following = max(issued) + 1
    minutes = (now - _FIRST) // timedelta(minutes=1)
    if minutes < INCARNATION_END - _RESERVED_FOR_COUNTING:
        following = max(following, minutes)
    return following if following < INCARNATION_END else None
