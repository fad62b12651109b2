"""Processes of a session: all there is to find a dead keeper's command by, where there are no cgroups.

Weaker than a group: a process that began a session of its own is not found. `Containment.describe` says so.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

_STATE, _SESSION, _START_TICKS = 0, 3, 19
"""Fields of /proc/PID/stat after the name."""


def session_members(leader_pid: int, start_ticks: int) -> tuple[int, ...]:
    """Living processes of the session that `leader_pid`, started at `start_ticks` of this boot, began."""
    found = []
    for entry in Path("/proc").iterdir():
        fields = _stat(entry) if entry.name.isdigit() else []
        if not fields or fields[_STATE] == b"Z" or int(fields[_SESSION]) != leader_pid:
            continue
        if int(entry.name) == leader_pid and int(fields[_START_TICKS]) != start_ticks:
            return ()  # The number was given to a stranger, so our session is gone.
        if int(fields[_START_TICKS]) >= start_ticks:
            found.append(int(entry.name))
    return tuple(found)


def kill_session(leader_pid: int, start_ticks: int) -> None:
    for pid in session_members(leader_pid, start_ticks):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _stat(process: Path) -> list[bytes]:
    try:
        return (process / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
