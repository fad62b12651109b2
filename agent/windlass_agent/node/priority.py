"""The agent comes before its commands when they leave it too little, as far as the machine allows.

Not always: an agent that is woken before everybody else does its work in smaller portions, and was measured
to take a third more processor time for the same number of short commands.
"""

import os
from contextlib import suppress
from pathlib import Path

_LATE_S = 0.2
"""A loop that comes so much later than it wanted to has been kept waiting by others."""
_CALM_S = 60.0
_NICE = -10
"""About ten times the share of a command, and woken before it; needs root."""
_OOM_SCORE_ADJ = "-500"
"""When memory runs out the kernel ends commands first; needs root. Keepers have it too, commands do not."""


def protect_from_oom() -> None:
    own = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):
        if int(own.read_text()) > int(_OOM_SCORE_ADJ):
            own.write_text(_OOM_SCORE_ADJ)


class Priority:
    """Of all threads of this process."""

    def __init__(self) -> None:
        self._usual = os.getpriority(os.PRIO_PROCESS, 0)
        self._back_at_s = 0.0

    def was_late(self, late_s: float, *, now_s: float) -> bool:
        """To be told now and then by how much a loop came too late; whether that changed anything."""
        if late_s >= _LATE_S:
            is_new, self._back_at_s = not self._back_at_s, now_s + _CALM_S
            return is_new and _set_nice(min(self._usual, _NICE))
        if self._back_at_s and now_s >= self._back_at_s:
            self._back_at_s = 0.0
            return _set_nice(self._usual)
        return False


def _set_nice(value: int) -> bool:
    """The kernel keeps it per thread."""
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, int(thread), value)
        return True
    return False
