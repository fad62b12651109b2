"""How a store is, told by its implementation and shown by the program: what holds it up, who waits for it.

The program makes one and gives it to `open_store`. Also what a store asks of the program: room on the disk
when there is none left, and the end of the process when nothing that it has written can be trusted any more.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from windlass_coordinator.stores.lanes import Lane

STUCK_AFTER = timedelta(seconds=5)
"""A commit that takes longer than this is told to whoever asks whether the coordinator is ready."""


class DiskRoom(Protocol):
    """What was put aside on the disk for the day on which it is full."""

    @property
    def is_whole(self) -> bool:
        """Whether it is there still; without it no new work is handed out."""

    def give_up(self) -> bool:
        """Frees what was put aside; False when there is nothing left to free."""


class NoDiskRoom:
    """Where nothing was put aside."""

    is_whole = True

    def give_up(self) -> bool:
        return False


@dataclass(slots=True, eq=False, kw_only=True)
class StoreCondition:
    """Written by the store's thread, read by all."""

    room: DiskRoom = field(default_factory=NoDiskRoom)
    on_broken: Callable[[str], None] = lambda why: None
    """Called by whichever thread finds that the disk has lost what was written: the process must end."""
    queue_limit: int = 8192
    """Orders that may wait for the store; the vital ones may be eight times as many."""
    trouble: str | None = None
    """Why nothing can be written now, in one sentence."""
    busy_since_s: float | None = None
    """Of the monotonic clock: the commit that is under way."""
    waiting: Callable[[], int] = lambda: 0
    """Orders that wait now."""
    shed: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    """Orders refused because too many waited."""

    def why_not_ready(self) -> str | None:
        """In one sentence; None = it commits."""
        if self.trouble is not None:
            return self.trouble
        since = self.busy_since_s
        if since is not None and (stuck_s := time.monotonic() - since) > STUCK_AFTER.total_seconds():
            return f"the database has not answered for {stuck_s:.0f} s"
        return None
