"""What an agent does when its coordinator is away, overloaded, or was away for too long."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from tests.support.chaos_proxy import chaos_proxy
from windlass_agent.core.backoff import Backoff
from windlass_agent.core.run_plan import Lease
from windlass_agent.link.channel import Caller, Channels, translated
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_proto.errors import NoRoom, Overloaded, SessionLost, Unavailable
from windlass_proto.model.assignments import Timing
from windlass_proto.v1 import agent_pb2 as wire
from windlass_proto.v1.agent_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server

QUICK = Backoff(base=timedelta(milliseconds=2), ceiling=timedelta(milliseconds=4))
TIMING = Timing(
    heartbeat_interval=timedelta(seconds=1),
    lease=timedelta(seconds=4),
    poll_wait=timedelta(seconds=1),
    kill_grace=timedelta(seconds=2),
)


class Away(AgentServiceServicer):
    """A coordinator whose calls come to what the test says."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.heard = asyncio.Event()
        self.refuses = True
        self.pushback_ms = 0
        self.address = ""

    async def _answer(self, name: str, context: grpc.aio.ServicerContext) -> None:
        self.calls[name] += 1
        self.heard.set()
        if self.refuses:
            trailers = (("grpc-retry-pushback-ms", str(self.pushback_ms)),) if self.pushback_ms else ()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now", trailers)

    async def Heartbeat(  # noqa: N802  (its name in the protocol)
        self, request: wire.HeartbeatRequest, context: grpc.aio.ServicerContext
    ) -> wire.HeartbeatReply:
        await self._answer("Heartbeat", context)
        return wire.HeartbeatReply()

    async def Report(  # noqa: N802  (its name in the protocol)
        self, request: wire.ReportRequest, context: grpc.aio.ServicerContext
    ) -> wire.ReportReply:
        await self._answer("Report", context)
        return wire.ReportReply()

    async def until(self, name: str, count: int) -> None:
        async with asyncio.timeout(30):
            while self.calls[name] < count:
                self.heard.clear()
                await self.heard.wait()


@asynccontextmanager
async def a_coordinator() -> AsyncIterator[tuple[Away, Channels]]:
    server, away = grpc.aio.server(), Away()
    add_AgentServiceServicer_to_server(away, server)
    away.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    channels = Channels(
        away.address, keepalive=timedelta(seconds=20), keepalive_timeout=timedelta(seconds=10)
    )
    try:
        yield away, channels
    finally:
        await channels.close()
        await server.stop(None)


def a_caller(channels: Channels) -> Caller:
    return Caller(backoff=QUICK, credential=lambda: "", check=_no_objection, renew=channels.renew)


def _no_objection() -> None:
    """Every call may be made."""


async def beat(caller: Caller, channels: Channels, times: int) -> None:
    for failures in range(1, times + 1):
        with pytest.raises(Unavailable):
            await caller.lifeline(channels.control.Heartbeat, wire.HeartbeatRequest(), timeout_s=10)
        await caller.pause(failures)


async def test_while_the_coordinator_is_away_only_the_lifeline_tries_again() -> None:
    async with a_coordinator() as (away, channels), asyncio.TaskGroup() as group:
        caller = a_caller(channels)
        await beat(caller, channels, 1)
        reporting = group.create_task(
            caller.persist(channels.control.Report, wire.ReportRequest(), timeout_s=10)
        )
        await away.until("Report", 1)
        await beat(caller, channels, 30)
        assert away.calls == {"Heartbeat": 31, "Report": 1}

        away.refuses = False
        await caller.lifeline(channels.control.Heartbeat, wire.HeartbeatRequest(), timeout_s=10)
        async with asyncio.timeout(30):
            await reporting
        assert away.calls["Report"] == 2


async def test_connections_that_swallow_everything_are_given_up_and_calls_made_again() -> None:
    async with a_coordinator() as (away, _):
        with chaos_proxy(away.address) as proxy:
            channels = Channels(
                proxy.address, keepalive=timedelta(seconds=20), keepalive_timeout=timedelta(seconds=10)
            )
            caller = a_caller(channels)
            away.refuses = False
            await caller.lifeline(channels.control.Heartbeat, wire.HeartbeatRequest(), timeout_s=10)
            proxy.swallow()
            async with asyncio.TaskGroup() as group:
                reporting = group.create_task(
                    caller.persist(channels.control.Report, wire.ReportRequest(), timeout_s=3600)
                )
                for _ in range(2):
                    with pytest.raises(Unavailable):
                        await caller.lifeline(
                            channels.control.Heartbeat, wire.HeartbeatRequest(), timeout_s=0.3
                        )
                await caller.lifeline(channels.control.Heartbeat, wire.HeartbeatRequest(), timeout_s=10)
                async with asyncio.timeout(30):
                    await reporting
            assert away.calls == {"Heartbeat": 2, "Report": 1}
            await channels.close()


async def test_a_single_call_that_is_refused_is_tried_again_by_itself() -> None:
    async with a_coordinator() as (away, channels), asyncio.TaskGroup() as group:
        caller = a_caller(channels)
        group.create_task(caller.persist(channels.control.Report, wire.ReportRequest(), timeout_s=10))
        await away.until("Report", 5)
        away.refuses = False


async def test_whoever_loses_the_coordinator_comes_back_within_the_time_of_the_whole_fleet() -> None:
    async with a_coordinator() as (_, channels):
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        caller = Caller(
            backoff=QUICK,
            credential=lambda: "",
            check=_no_objection,
            renew=channels.renew,
            reconnect_within=lambda: timedelta(seconds=1000),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            for _ in range(50):
                await caller.pause(1, Unavailable("the connection is lost"))
            assert max(slept) > 100
            slept.clear()
            for problem in (Overloaded("busy", retry_after=timedelta(seconds=1)), NoRoom("full"), None):
                await caller.pause(1, problem)
            assert max(slept) <= 2


async def test_an_overloaded_coordinator_is_left_alone_for_as_long_as_it_asks() -> None:
    async with a_coordinator() as (away, channels):
        away.pushback_ms = 1500
        with pytest.raises(Overloaded) as caught:
            await a_caller(channels).once(channels.control.Report, wire.ReportRequest(), timeout_s=10)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await a_caller(channels).pause(1, caught.value)
        assert loop.time() - began_s >= 1.5


def test_nobody_is_put_off_for_ever_by_one_answer() -> None:
    problem = translated(
        grpc.aio.AioRpcError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(("grpc-retry-pushback-ms", "99999999999")),
        )
    )
    assert isinstance(problem, Overloaded)
    assert problem.retry_after == timedelta(minutes=1)


class Leaseholder:
    """Hears what becomes of the lease."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self.suspensions = 0
        self.resumptions = 0

    def renew_lease(self, lease: Lease) -> None:
        self.leases.append(lease)

    def suspend(self) -> None:
        self.suspensions += 1

    def resume(self) -> None:
        self.resumptions += 1


class Machine:
    """Its boot clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def clock(self) -> float:
        return self.now_s


def test_after_a_pause_beyond_the_lease_no_call_is_made_before_a_new_session() -> None:
    machine, holder = Machine(), Leaseholder()
    watch = LeaseWatch(clock=machine.clock)
    watch.opened(holder, TIMING, sent_at_s=1000.0)
    watch.check()
    machine.now_s += 4.1
    with pytest.raises(SessionLost):
        watch.check()
    with pytest.raises(SessionLost):
        watch.check()
    watch.closed()
    watch.check()  # OpenSession itself
    watch.opened(holder, TIMING, sent_at_s=machine.now_s)
    watch.check()


def test_a_pause_within_the_lease_is_none() -> None:
    machine = Machine()
    watch = LeaseWatch(clock=machine.clock)
    watch.opened(Leaseholder(), TIMING, sent_at_s=1000.0)
    machine.now_s += 3.9
    watch.check()


async def test_a_lease_that_ends_while_the_agent_is_awake_ends_no_session_but_starts_nothing() -> None:
    machine, holder = Machine(), Leaseholder()
    watch = LeaseWatch(clock=machine.clock)
    watch.opened(holder, TIMING, sent_at_s=1000.0)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        watching = group.create_task(watch.serve(holder))
        while not holder.suspensions:
            machine.now_s += 0.5
            await asyncio.sleep(0.3)
        watch.check()
        assert not watching.done()
        watching.cancel()


async def test_the_watch_ends_the_session_that_was_slept_through() -> None:
    machine = Machine()
    watch = LeaseWatch(clock=machine.clock)
    watch.opened(Leaseholder(), TIMING, sent_at_s=1000.0)
    machine.now_s += 60
    async with asyncio.timeout(30):
        await watch.serve(Leaseholder())


def test_keepers_hear_until_when_the_lease_lasts_counted_from_what_was_sent() -> None:
    holder = Leaseholder()
    watch = LeaseWatch(clock=Machine().clock)
    watch.opened(holder, TIMING, sent_at_s=1000.0)
    watch.renewed(holder, TIMING, sent_at_s=1001.5)
    assert holder.leases == [Lease(until_s=1004.0, kill_grace_s=2.0), Lease(until_s=1005.5, kill_grace_s=2.0)]
