"""What all of the keeper uses: the form of a record, the clock, the crash points."""

import json
import os
import signal
import time
from collections.abc import Sequence

TYPE_CHECKING = False
"""Not imported: `typing` costs every keeper 3 ms and 1 MiB."""
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]  # as JSON gives it
else:
    Record = dict

PROTOCOL = 2
"""Of the messages between agent and keeper. Each side passes over what it does not know, so a newer agent
can speak to an older keeper and the other way round; the number says in a log what the other one can."""
NEVER = float("inf")
encode = json.JSONEncoder(separators=(",", ":")).encode
_crash_at = ""
_crash_after = 0


def boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def crash_at(failpoint: str) -> None:
    """For test builds: the n-th `reach` of this name (`name` or `name:n`) ends the keeper."""
    global _crash_at, _crash_after
    _crash_at, _, nth = failpoint.partition(":")
    _crash_after = int(nth or 1)


def reach(failpoint: str) -> None:
    """A named arrow of protocol.md, section 7; crossing it may be made to end the keeper as kill -9 would."""
    global _crash_after
    if failpoint == _crash_at:
        _crash_after -= 1
        if _crash_after == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def owner_of(fence: int, uids: Sequence[int]) -> int:
    """User (and group) of an isolated attempt, from the slot's own range [first, count].

    Attempts that run at the same time are in different slots; the next one in a slot is another user.
    """
    first, count = uids
    return first + fence % count
