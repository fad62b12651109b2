"""While a node's lease holds its attempts may publish; nothing is begun at the end of it."""

import asyncio
from datetime import timedelta

import pytest

from windlass_agent.core.backoff import Backoff
from windlass_agent.core.output_gate import LeaseOver
from windlass_agent.core.run_plan import Lease
from windlass_agent.link.channel import Caller, Channels
from windlass_agent.link.current_session import CurrentSession
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_agent.link.output_gate import CoordinatorGate
from windlass_proto.model.assignments import Timing

TIMING = Timing(
    heartbeat_interval=timedelta(seconds=5),
    lease=timedelta(seconds=20),
    poll_wait=timedelta(seconds=30),
    kill_grace=timedelta(seconds=10),
)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Commands:
    """What else depends on the lease."""

    def renew_lease(self, lease: Lease) -> None:
        return

    def suspend(self) -> None:
        return

    def resume(self) -> None:
        return


async def a_gate(clock: Clock) -> tuple[CoordinatorGate, LeaseWatch, Channels]:
    watch = LeaseWatch(clock=clock)
    channels = Channels(
        "127.0.0.1:1", keepalive=timedelta(seconds=20), keepalive_timeout=timedelta(seconds=10)
    )
    caller = Caller(backoff=Backoff(), credential=str, check=watch.check, renew=channels.renew)
    current = CurrentSession(caller, timeout_s=1)
    return CoordinatorGate(channels, caller, watch, current=current, clock=clock), watch, channels


@pytest.mark.parametrize(
    ("after_s", "holds"), [(0.0, True), (14.9, True), (15.1, False), (20.0, False), (1e6, False)]
)
async def test_nothing_is_begun_in_the_last_quarter_of_a_lease(after_s: float, holds: bool) -> None:
    clock = Clock()
    gate, watch, channels = await a_gate(clock)
    watch.opened(Commands(), TIMING, sent_at_s=clock.now_s)
    clock.now_s += after_s
    if holds:
        gate.check()
    else:
        with pytest.raises(LeaseOver, match="has not been heard for too long"):
            gate.check()
    await channels.close()


async def test_without_a_session_nothing_is_begun_and_who_waits_goes_on_with_the_next() -> None:
    clock = Clock()
    gate, watch, channels = await a_gate(clock)
    with pytest.raises(LeaseOver, match="no session"):
        gate.check()
    waiting = asyncio.create_task(gate.held())
    await asyncio.sleep(0)
    assert not waiting.done()
    watch.opened(Commands(), TIMING, sent_at_s=clock.now_s)
    async with asyncio.timeout(30):
        await waiting
    watch.closed()
    with pytest.raises(LeaseOver):
        gate.check()
    await channels.close()
