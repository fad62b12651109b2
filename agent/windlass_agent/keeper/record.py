"""What all of the keeper uses: the form of a record, the clock, the crash points."""

import json
import os
import signal
import time

TYPE_CHECKING = False
"""Not imported: `typing` costs every keeper 3 ms and 1 MiB."""
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]  # as JSON gives it
else:
    Record = dict

NEVER = float("inf")
encode = json.JSONEncoder(separators=(",", ":")).encode
_crash_at = ""


def boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def crash_at(failpoint: str) -> None:
    """For test builds: `reach` of this name ends the keeper."""
    global _crash_at
    _crash_at = failpoint


def reach(failpoint: str) -> None:
    """A named arrow of protocol.md, section 7; crossing it may be made to end the keeper as kill -9 would."""
    if failpoint == _crash_at:
        os.kill(os.getpid(), signal.SIGKILL)
