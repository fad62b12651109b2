"""What waits for the writer: bounded, the urgent first, and nobody for ever.

Any thread puts; the writer alone takes. Orders arrive in one queue and are sorted into lanes by the writer,
so that a heartbeat overtakes the submits that came before it at the cost of one append.
"""

import asyncio
import concurrent.futures
import queue
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from windlass_coordinator.stores.base import Transaction
from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.lanes import Lane
from windlass_proto.errors import Overloaded

# More verbs than this in one commit gain nothing and delay the first.
VERBS_PER_COMMIT = 256

# Of the limit of the queue: the cheapest load is refused first, heartbeats and results practically never.
_SHARE_OF_LIMIT = {Lane.VITAL: 8.0, Lane.STEER: 1.0, Lane.CHANGE: 0.75, Lane.LOOK: 0.5, Lane.LOG: 0.25}

# What each lane gets of a commit at least, when all of them wait.
_LEAST_PER_COMMIT = {Lane.VITAL: 160, Lane.STEER: 32, Lane.CHANGE: 32, Lane.LOOK: 16, Lane.LOG: 16}

_RETRY_AFTER = timedelta(seconds=1)

Reply = asyncio.Future[Any] | concurrent.futures.Future[Any]


@dataclass(frozen=True, slots=True)
class Order:
    """A verb to be committed."""

    verb: Callable[[Transaction], Any]
    reply: Reply
    lane: Lane
    query: Callable[[], Any] | None = None
    """Instead of the verb: something to read between two commits."""


class OrderQueue:
    """Between those who ask and the writer."""

    def __init__(self, condition: StoreCondition) -> None:
        self._condition = condition
        self._limits = {lane: int(condition.queue_limit * _SHARE_OF_LIMIT[lane]) for lane in Lane}
        self._arrived: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._lanes: dict[Lane, deque[Order]] = {lane: deque() for lane in Lane}
        self._sorted = 0
        self._is_closing = False

    def __len__(self) -> int:
        return self._sorted + self._arrived.qsize()

    def put(self, order: Order) -> None:
        """Raises Overloaded when too many wait for one of this lane to be added."""
        if len(self) >= self._limits[order.lane]:
            self._condition.shed[order.lane] += 1
            raise Overloaded(
                f"{len(self)} calls wait for the database, too many for another of this kind "
                f"(overload.store_queue = {self._condition.queue_limit}): try again later",
                retry_after=_RETRY_AFTER,
            )
        self._arrived.put(order)

    def close(self) -> None:
        """Nothing more will be put; what waits is still taken."""
        self._arrived.put(None)

    def take(self, *, patience_s: float | None = None) -> list[Order] | None:
        """Waits for orders; what one commit should serve, the urgent first. Empty when none came in time,
        None when closed."""
        if not self._sorted:
            if self._is_closing:
                return None
            try:
                order = self._arrived.get(timeout=patience_s)
            except queue.Empty:
                return []
            if order is not None and self._arrived.empty():
                return [order]
            self._sort(order)
        while not self._arrived.empty():
            self._sort(self._arrived.get())
        return self._take_all() if self._sorted <= VERBS_PER_COMMIT else self._take_shares()

    def put_back(self, orders: Sequence[Order]) -> None:
        """Those of the last commit that it had no time for; they come first again."""
        for order in reversed(orders):
            self._lanes[order.lane].appendleft(order)
        self._sorted += len(orders)

    def _sort(self, order: Order | None) -> None:
        if order is None:
            self._is_closing = True
            return
        self._lanes[order.lane].append(order)
        self._sorted += 1

    def _take_all(self) -> list[Order]:
        taken: list[Order] = []
        for waiting in self._lanes.values():
            taken += waiting
            waiting.clear()
        self._sorted = 0
        return taken

    def _take_shares(self) -> list[Order]:
        taken: list[Order] = []
        for lane in Lane:
            taken += self._take_from(lane, _LEAST_PER_COMMIT[lane])
        for lane in Lane:
            taken += self._take_from(lane, VERBS_PER_COMMIT - len(taken))
        return taken

    def _take_from(self, lane: Lane, most: int) -> list[Order]:
        waiting = self._lanes[lane]
        taken = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        self._sorted -= len(taken)
        return taken
