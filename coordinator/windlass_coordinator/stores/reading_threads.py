"""The threads on which users' queries run, and how many may wait for one: what every store does the same."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.lanes import Lane
from windlass_proto.errors import Overloaded

T = TypeVar("T")

THREADS = 2

_WAITING = 1024
"""Queries that wait for a thread; each takes milliseconds, and most who ask would give up before."""


class ReadingThreads:
    """Of one store."""

    def __init__(self, condition: StoreCondition) -> None:
        self._condition = condition
        self._waiting = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store-reader")

    async def run(self, read: Callable[[], T]) -> T:
        """Raises Overloaded when too many wait already."""
        if self._waiting >= _WAITING:
            self._condition.shed[Lane.LOOK] += 1
            raise Overloaded(f"{self._waiting} queries wait for the database already: try again later")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finishes what was begun."""
        self._threads.shutdown()
