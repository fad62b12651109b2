"""How long to wait before trying again: exponential with full jitter.

Full jitter spreads the agents of a large installation evenly after a coordinator restart, where a fixed or
slightly varied pause makes them come back in waves.
"""

from dataclasses import dataclass, replace
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    base: timedelta = timedelta(milliseconds=100)
    """Upper bound of the first pause."""
    ceiling: timedelta = timedelta(seconds=15)
    """Upper bound of every pause: a restarted coordinator is found within this time."""

    def within(self, spread: timedelta) -> "Backoff":
        """With pauses of up to `spread` from the first on: for callers that all failed at once."""
        return replace(self, base=max(self.base, spread), ceiling=max(self.ceiling, spread))

    def delay(self, failures: int, *, jitter: float) -> timedelta:
        """The pause after the given number of failures in a row; `jitter` is random in [0, 1)."""
        if failures < 1:
            raise ValueError(f"a pause follows at least one failure (got {failures})")
        doublings = min(failures - 1, 32)
        return min(self.base * (1 << doublings), self.ceiling) * jitter
