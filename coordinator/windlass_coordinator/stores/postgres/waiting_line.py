"""Verbs that wait for a writer: bounded, the urgent first, and nobody for longer than a caller would wait."""

import asyncio
import concurrent.futures
import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from windlass_coordinator.stores.base import Transaction
from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.lanes import Lane
from windlass_proto.errors import Overloaded

Reply = asyncio.Future[Any] | concurrent.futures.Future[Any]

# Of the limit of the line: the cheapest load is refused first, heartbeats and results practically never.
_SHARE_OF_LIMIT = {Lane.VITAL: 8.0, Lane.STEER: 1.0, Lane.CHANGE: 0.75, Lane.LOOK: 0.5, Lane.LOG: 0.25}
_RANKS = {lane: rank for rank, lane in enumerate(Lane)}
_RETRY_AFTER = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class VerbOrder:
    """A verb to be committed."""

    verb: Callable[[Transaction], Any]
    reply: Reply
    lane: Lane
    at_s: float
    """When it came, on the monotonic clock."""


class WaitingLine:
    """Between those who ask and the writers; any thread may put and take."""

    def __init__(self, condition: StoreCondition) -> None:
        self._condition = condition
        self._limits = {lane: int(condition.queue_limit * _SHARE_OF_LIMIT[lane]) for lane in Lane}
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int, VerbOrder]] = []
        self._numbers = itertools.count()
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, order: VerbOrder) -> None:
        """Raises Overloaded when too many wait for one of this lane to be added."""
        with self._changed:
            if len(self._waiting) >= self._limits[order.lane]:
                self._condition.shed[order.lane] += 1
                raise Overloaded(
                    f"{len(self._waiting)} calls wait for the database, too many for another of this kind "
                    f"(overload.store_queue = {self._condition.queue_limit}): try again later",
                    retry_after=_RETRY_AFTER,
                )
            heapq.heappush(self._waiting, (_RANKS[order.lane], next(self._numbers), order))
            self._changed.notify()

    def take(self) -> VerbOrder | None:
        """The most urgent one, or None when the line is closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._is_closing:
                    return None
                self._changed.wait()
            return heapq.heappop(self._waiting)[2]

    def close(self) -> None:
        """Nothing more will be put; what waits is still taken."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
