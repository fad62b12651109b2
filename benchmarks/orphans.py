"""Nothing that a measurement started outlives it, not even what its programs left behind.

This process adopts the orphans of its descendants (Linux' child subreaper). So it can end them, and it learns
the CPU time of all of them, which tells the machine's load from its own.
"""

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on. Where it is refused, orphans are not found and their time counts as the machine's."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> int:
    """How many had to be killed. To be called while this process has no children of its own that it needs."""
    killed = 0
    while children := _children():
        for pid in children:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                killed += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return killed


def _children() -> list[int]:
    found = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += [int(pid) for pid in (thread / "children").read_text(encoding="ascii").split()]
    return found
