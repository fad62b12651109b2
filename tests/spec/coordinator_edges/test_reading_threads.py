"""Queries run on a few threads, and only so many wait for one."""

import asyncio
import threading

import pytest

from windlass_coordinator.stores import reading_threads
from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.lanes import Lane
from windlass_coordinator.stores.reading_threads import ReadingThreads
from windlass_proto.errors import Overloaded


async def test_of_too_many_queries_the_last_are_refused_and_the_others_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading_threads, "_WAITING", 10)
    condition, may_end = StoreCondition(), threading.Event()
    threads = ReadingThreads(condition)
    try:
        reads = [asyncio.create_task(threads.run(lambda: may_end.wait(20))) for _ in range(10)]
        await asyncio.sleep(0)  # so that each has asked
        with pytest.raises(Overloaded, match="10 queries wait for the database already"):
            await threads.run(lambda: None)
        may_end.set()
        assert await asyncio.gather(*reads) == [True] * 10
        assert await threads.run(lambda: "again") == "again"
    finally:
        may_end.set()
        threads.close()
    assert condition.shed[Lane.LOOK] == 1
