"""The agent comes before the commands that it runs, as far as the machine allows."""

import os
from contextlib import suppress
from pathlib import Path

_NICE = -5
"""About three times the share of a command, and woken before it; needs root. Keepers have it too, their
commands do not inherit it."""
_OOM_SCORE_ADJ = "-500"
"""When memory runs out the kernel ends commands first; needs root."""


def protect_self() -> None:
    """Before any thread is started: they inherit it, others do not get it afterwards."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    own = Path("/proc/self/oom_score_adj")
    with suppress(OSError, ValueError):
        if int(own.read_text()) > int(_OOM_SCORE_ADJ):
            own.write_text(_OOM_SCORE_ADJ)
