"""Whether the coordinator can take on work, and if not, why: what `/health/ready` answers.

Duties that fail count too: the process lives on and serves, but what it does by itself is not done.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

WhyNot = Callable[[], str | None]
"""Says in one sentence why no work can be taken on; None = it can."""

_RECENT_S = 10.0
"""A duty counts as failing until it has run for so long after its pause."""


@dataclass(slots=True, kw_only=True)
class _Failure:
    reason: str
    times: int
    forgotten_at_s: float


@dataclass(slots=True, eq=False)
class DutyBoard:
    """Which duties have failed lately."""

    clock: Callable[[], float] = time.monotonic
    failures: dict[str, int] = field(default_factory=dict)
    """Of each duty since the start."""
    _recent: dict[str, _Failure] = field(default_factory=dict)

    def failed(self, duty: str, reason: str, *, pause_s: float) -> None:
        """The duty has failed and is tried again after a pause."""
        self.failures[duty] = self.failures.get(duty, 0) + 1
        known = self._recent.get(duty)
        times = known.times + 1 if known is not None and self.clock() < known.forgotten_at_s else 1
        self._recent[duty] = _Failure(
            reason=reason, times=times, forgotten_at_s=self.clock() + pause_s + _RECENT_S
        )

    def times_in_a_row(self, duty: str) -> int:
        """How often it has failed without a longer time of success between."""
        known = self._recent.get(duty)
        return known.times if known is not None and self.clock() < known.forgotten_at_s else 0

    def why_not_ready(self) -> str | None:
        """What fails now."""
        for duty, failure in self._recent.items():
            if self.clock() < failure.forgotten_at_s:
                return f"degraded: {duty} has failed {failure.times} times: {failure.reason}"
        return None


class Readiness:
    """Asks all who may know a reason."""

    def __init__(self, *sources: WhyNot) -> None:
        self._sources = sources
        self._phase: str | None = "starting"

    def begin(self) -> None:
        """Calls are served from now on."""
        self._phase = None

    def end(self) -> None:
        """No more calls are taken."""
        self._phase = "going down"

    def why_not(self) -> str | None:
        """All reasons in one sentence; None = ready."""
        reasons = [self._phase, *(source() for source in self._sources)]
        return "; ".join(reason for reason in reasons if reason is not None) or None
