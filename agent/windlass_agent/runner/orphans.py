"""What runs for a state directory that is no more: its keepers and their commands (fault B17).

Nobody would ever hear of them again. Only what is provably ours is ended: groups named by this very directory
(device and inode) under an identity that it had before, and groups of keepers that were started below this
path and whose own directory has been removed. A copy of the directory, or another agent, has neither.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from windlass_agent.runner.cgroups import Containment

_EMPTY_S = 5.0
_LOOK_S = 0.02

log = structlog.get_logger()


def end_orphans(containment: Containment, root: Path, place: str) -> int:
    """How many processes were ended. Blocks, for a few seconds at most."""
    keepers = frozenset(_keepers_without_home(root))
    found = [
        one for one in containment.siblings() if one.owner.endswith(f"-{place}") or one.pids_in() & keepers
    ]
    ended = sum(_end(one) for one in found)
    if not found:
        return 0
    log.warning("orphans.ended", groups=[one.owner for one in found], processes=ended)
    return ended


def _end(group: Containment) -> int:
    pids = group.pids_in()
    give_up_at = time.monotonic() + _EMPTY_S
    while group.pids_in() and time.monotonic() < give_up_at:
        for number in group.orphaned_slots(0):
            group.kill_group(number)
        time.sleep(_LOOK_S)
    group.remove_empty()
    group.remove_unused()
    return len(pids)


def _keepers_without_home(root: Path) -> Iterator[int]:
    """Keepers of slots below `root` whose slot, as they have it open, does not exist any more."""
    prefix = f"{root}/slots/"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, LookupError, TypeError):
                slot = json.loads((entry / "cmdline").read_bytes().split(b"\0")[-2])["slot"]
                if slot.startswith(prefix) and _has_removed(entry, slot):
                    yield int(entry.name)


def _has_removed(process: Path, slot: str) -> bool:
    """By its lock, which it has open for as long as it lives."""
    removed = f"{slot}/keeper.lock (deleted)"
    return any(os.readlink(fd) == removed for fd in (process / "fd").iterdir())
