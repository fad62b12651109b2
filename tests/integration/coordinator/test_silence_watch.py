"""What the watch over silent nodes does of itself."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.core.leases import LeasePolicy
from windlass_coordinator.duties import SilenceWatch
from windlass_coordinator.engine.fleet import Fleet
from windlass_proto.model.states import NodeState


class _Hours:
    """Each look is an hour after the one before."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 3_601
        return self.now_s


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
