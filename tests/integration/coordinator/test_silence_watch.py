"""What the watch over silent nodes does of itself."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.core.leases import LeasePolicy
from windlass_coordinator.duties import SilenceWatch
from windlass_coordinator.engine.fleet import Fleet
from windlass_coordinator.stores.base import Store, Transaction
from windlass_proto.model.states import NodeState

T = TypeVar("T")


class _Hours:
    """Each look is an hour after the one before."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 3_601
        return self.now_s


class _SlowStore:
    """Much happens while it runs a verb."""

    def __init__(self, store: Store, meanwhile: Callable[[], None]) -> None:
        self._store = store
        self._meanwhile = meanwhile

    async def run(self, verb: Callable[[Transaction], T]) -> T:
        result = await self._store.run(verb)
        self._meanwhile()
        return result


def test_a_node_that_is_heard_while_others_are_marked_silent_keeps_its_session() -> None:
    with InMemoryCoordinator() as coordinator:
        first, heard, last = (coordinator.node(name=name) for name in ("first", "heard", "last"))
        clock_s = 0.0
        fleet = Fleet(LeasePolicy(), monotonic=lambda: clock_s)
        for node in (first, heard, last):
            fleet.hear(node.key)
        clock_s = 60.0
        store = _SlowStore(coordinator.store, meanwhile=lambda: fleet.hear(heard.key))
        watch = SilenceWatch(store, fleet, coordinator.rules)

        async def until_the_last_is_marked() -> None:
            watching = asyncio.ensure_future(watch.run())
            try:
                async with asyncio.timeout(60):
                    while last.key not in coordinator.run(lambda tx: tx.nodes_in((NodeState.SILENT,))):
                        await asyncio.sleep(0.1)
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching

        asyncio.run(until_the_last_is_marked())

        assert coordinator.run(lambda tx: tx.nodes_in((NodeState.SILENT,))) == [first.key, last.key]


def test_a_node_whose_join_was_answered_into_the_void_is_gone_in_the_end() -> None:
    with InMemoryCoordinator() as coordinator:
        ghost = coordinator.join(coordinator.join_token())
        fleet = Fleet(LeasePolicy(shortest_interval=timedelta(days=1)), monotonic=_Hours())
        watch = SilenceWatch(coordinator.store, fleet, coordinator.rules)

        async def until_it_is_gone() -> None:
            watching = asyncio.ensure_future(watch.run())
            try:
                async with asyncio.timeout(60):
                    while coordinator.run(lambda tx: tx.nodes_in((NodeState.JOINING,))):
                        await asyncio.sleep(0.1)
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching

        asyncio.run(until_it_is_gone())
        assert coordinator.run(lambda tx: tx.nodes_in((NodeState.GONE,))) == [ghost.key]

        coordinator.open_session(ghost)  # it was only late
        assert coordinator.run(lambda tx: tx.nodes_in((NodeState.READY,))) == [ghost.key]
