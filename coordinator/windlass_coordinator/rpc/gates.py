"""How much of one kind is served at once, and how long those beyond are asked to wait (promise P20).

Who is refused comes again. Asked to wait too short a time, thousands of callers cost more than those who are
served, and nobody gets on; so those who are put off stand in a line that is as long as it takes to serve it.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from math import exp

from windlass_proto.errors import Overloaded

RETRY_AFTER = timedelta(seconds=1)
LONGEST_RETRY_AFTER = timedelta(seconds=30)
_BURST_S = 1.0
_REMEMBERED_S = 4.0
"""What was served within about so long, all places taken, tells how fast calls are served."""
_SLOWEST_PER_S = 1.0
"""A service that stands still is taken to be no slower."""


class Gate:
    """How many calls of one kind are being served, and how many may be."""

    def __init__(self, name: str, limit: int) -> None:
        """`name` is that of the setting."""
        self.name = name
        self.limit = limit
        self.current = 0
        self.shed = 0

    def enter(self) -> None:
        """Raises Overloaded when there are enough already."""
        if self.current >= self.limit:
            raise self.refusal()
        self.current += 1

    def leave(self) -> None:
        """One call is done."""
        self.current -= 1

    def refusal(self) -> Overloaded:
        """For a call that is one too many."""
        self.shed += 1
        retry_after = self._retry_after()
        return Overloaded(
            f"too many calls of this kind at once (overload.{self.name} = {self.limit}): "
            f"try again in {retry_after.total_seconds():.0f} s",
            retry_after=retry_after,
        )

    def _retry_after(self) -> timedelta:
        return RETRY_AFTER


class LineAtTheGate:
    """Those who were put off, each until all before it can have been served."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._end_s = 0.0

    def put_off(self, *, rate_per_s: float) -> timedelta:
        """Takes the next place of the line, which moves at this rate: when to come again."""
        now_s = self._clock()
        first_s = now_s + RETRY_AFTER.total_seconds()
        last_s = now_s + LONGEST_RETRY_AFTER.total_seconds()
        self._end_s = min(last_s, max(self._end_s, first_s) + 1 / rate_per_s)
        return timedelta(seconds=self._end_s - now_s)


class PacedGate(Gate):
    """A gate that knows how fast it serves, for calls that come by the thousand when something has ended."""

    def __init__(
        self, name: str, limit: int, *, line: LineAtTheGate, fastest_per_s: float, clock: Callable[[], float]
    ) -> None:
        """`fastest_per_s` calls are let in by whoever stands before this gate."""
        super().__init__(name, limit)
        self._line, self._fastest_per_s, self._clock = line, fastest_per_s, clock
        self._seen_at_s = clock()
        self._spent_s = 0.0
        self._served = 0.0

    def enter(self) -> None:
        self._let_time_pass()
        super().enter()

    def leave(self) -> None:
        self._let_time_pass()
        self._served += 1
        super().leave()

    @property
    def rate_per_s(self) -> float:
        """How many calls a second are served when all places are taken, by how long each took lately."""
        if self._spent_s == 0:
            return self._fastest_per_s
        return min(self._fastest_per_s, max(_SLOWEST_PER_S, self.limit * self._served / self._spent_s))

    def _let_time_pass(self) -> None:
        now_s = self._clock()
        spent_s = self.current * (now_s - self._seen_at_s)
        kept = exp(-spent_s / (self.limit * _REMEMBERED_S))
        self._spent_s, self._served = self._spent_s * kept + spent_s, self._served * kept
        self._seen_at_s = now_s

    def _retry_after(self) -> timedelta:
        return self._line.put_off(rate_per_s=self.rate_per_s)


class RateGate(Gate):
    """How many calls may begin in a second."""

    def __init__(
        self,
        name: str,
        limit: int,
        *,
        line: LineAtTheGate,
        rate_per_s: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate_per_s` tells how fast those who are let in are served."""
        super().__init__(name, limit)
        self._line, self._rate_per_s, self._clock = line, rate_per_s, clock
        self._seen_at_s = clock()
        self._level = 0.0

    def enter(self) -> None:
        now_s = self._clock()
        self._level = max(0.0, self._level - (now_s - self._seen_at_s) * self.limit)
        self._seen_at_s = now_s
        if self._level >= self.limit * _BURST_S:
            raise self.refusal()
        self._level += 1
        self.current = int(self._level)

    def leave(self) -> None:
        """What has begun has been counted."""

    def _retry_after(self) -> timedelta:
        return self._line.put_off(rate_per_s=self._rate_per_s())
