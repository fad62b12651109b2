"""Coordinators on PostgreSQL: its processes die, the holder of the duties is frozen, the database is slow."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from datetime import timedelta

import psycopg

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support import postgres
from tests.support.chaos_proxy import ChaosProxy, chaos_proxy
from tests.support.several_coordinators import add_coordinator, holder_of_duties, on_postgres, reach_both
from tests.support.world import World
from windlass_proto.errors import Overloaded, Unavailable
from windlass_proto.model.states import AttemptState, JobState, NodeState


def a_server(world: World, *, fsync: bool = False, max_connections: int = 200) -> postgres.PostgresServer:
    reason = postgres.why_there_is_none()
    if reason is not None:
        raise NotRun(reason)
    return world.stack.enter_context(postgres.own_server(fsync=fsync, max_connections=max_connections))


@scenario("A15")
async def test_a15_a_killed_backend_and_a_crash_of_the_server_lose_and_double_nothing(
    world: World, profile: FaultProfile
) -> None:
    server = a_server(world, fsync=True)
    url = server.new_database()
    on_postgres(world, url)
    await world.start(slots=4)
    count = profile.of(quick=60, full=600)
    job = await world.submit(world.task("sleep 0.1", instances=count))
    await world.until_started(job, count // 6)
    os.kill(server.backends()[0], signal.SIGKILL)  # the server ends all the others too, and recovers
    await world.until_started(job, count // 2)
    await asyncio.to_thread(server.stop_at_once)
    async with world.new_client(patience=timedelta(seconds=60)) as client:
        submitting = asyncio.ensure_future(client.submit(world.job("true"), idempotency_key="meanwhile"))
        await asyncio.sleep(0)
        await asyncio.to_thread(server.start)
        meanwhile = await submitting
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert (await world.wait(meanwhile)).state is JobState.SUCCEEDED
    assert await world.submit("true", key="meanwhile") == meanwhile
    for instance in await world.instances(job):
        assert [attempt.state for attempt in instance.attempts] == [AttemptState.SUCCEEDED]
    assert len(world.ledger.starts(job)) == count
    await world.settle()
    world.look()


@scenario("A16")
async def test_a16_a_frozen_holder_of_the_duties_is_replaced_and_writes_nothing_late(world: World) -> None:
    server = a_server(world)
    url = server.new_database()
    on_postgres(world, url)
    await world.start(agents=0)
    await world.until(lambda: holder_of_duties(url)[1] == 1)
    other = add_coordinator(world)
    other.start()
    # The agent talks to the one that lives on; the frozen one is to believe that it is silent.
    agent = await world.add_agent(via=other.address)
    (first, term) = holder_of_duties(url)
    gate = world.gate()
    world._client = world.new_client(via=other.address)
    fails_once = f"{gate.wait}; [ $WINDLASS_ATTEMPT -gt 1 ]"
    job = await world.submit(world.task(fails_once, max_retries=2))
    await world.until_started(job)
    world.coordinator.pause()
    gate.open()
    await world.until(lambda: holder_of_duties(url)[1] > term)
    # A back-off ends by the new holder's hand.
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    world.coordinator.resume()
    await world.until(lambda: "role.lost" in world.coordinator.said)
    second, later = holder_of_duties(url)
    assert second != first
    assert later == term + 1
    await world.until_node(agent, NodeState.READY)
    assert [one.state for one in await world.attempts(job)] == [AttemptState.FAILED, AttemptState.SUCCEEDED]
    await world.settle()
    world.look()


@scenario("A16")
async def test_a16_killing_the_coordinator_that_an_agent_talks_to_costs_it_a_reconnect(world: World) -> None:
    server = a_server(world)
    on_postgres(world, server.new_database())
    await world.start(agents=0)
    other = add_coordinator(world)
    other.start()
    both = reach_both(world, other)
    await world.add_agent(via=both, slots=3)
    gate = world.gate()
    job = await world.submit(world.task(f"echo before; {gate.wait}; echo after", instances=3))
    await world.until_started(job, 3)
    world.clean_end = False
    world.coordinator.kill()
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    later = await world.submit("true")
    assert (await world.wait(later)).state is JobState.SUCCEEDED
    assert len(world.ledger.starts(job)) == 3
    for instance in await world.instances(job):
        assert [attempt.state for attempt in instance.attempts] == [AttemptState.SUCCEEDED]
        assert await world.log(job, instance.index) == b"before\nafter\n"
    await world.settle()
    world.look()


@scenario("A17", quick=False)
async def test_a17_a_database_without_connections_and_a_slow_one_are_waited_for(
    world: World, profile: FaultProfile
) -> None:
    server = a_server(world, max_connections=20)
    url = server.new_database()
    proxy = world.stack.enter_context(chaos_proxy(f"127.0.0.1:{server.port}"))
    on_postgres(world, url, via=url.replace(f"127.0.0.1:{server.port}", proxy.address))
    await world.start(slots=2)
    gate = world.gate()
    job = await world.submit(world.task(gate.wait, instances=2))
    await world.until_started(job, 2)
    taken = [psycopg.connect(url) for _ in range(20 - 3 - 12)]
    # Of the coordinator's connections one is lost, and there is none to be had for it.
    server.execute(f"SELECT pg_terminate_backend({server.backends()[0]})")
    taken.append(psycopg.connect(url))
    more = await world.submit("true")
    await _slow_for(world, proxy, timedelta(seconds=profile.of(quick=10, full=60)))
    proxy.up.delay_s = proxy.down.delay_s = profile.of(quick=0.1, full=0.2)
    gate.open()
    for found in (job, more):
        assert (await world.wait(found)).state is JobState.SUCCEEDED
    assert [node.state for node in await world.client.nodes()] == [NodeState.READY]
    assert len(world.ledger.starts(job)) == 2
    proxy.up.delay_s = proxy.down.delay_s = 0.0
    for connection in taken:
        connection.close()
    await world.settle()
    world.look()


async def _slow_for(world: World, proxy: ChaosProxy, lasting: timedelta) -> None:
    """Two seconds to the database and back: calls wait or are put off, and no node is taken for dead."""
    proxy.up.delay_s = proxy.down.delay_s = 1.0
    until_s = time.monotonic() + lasting.total_seconds()
    async with world.new_client(patience=timedelta()) as client:
        while time.monotonic() < until_s:
            with suppress(Unavailable, Overloaded):
                nodes = await client.nodes()
                assert [node.state for node in nodes] == [NodeState.READY]
    proxy.up.delay_s = proxy.down.delay_s = 0.0
    assert [node.state for node in await world.client.nodes()] == [NodeState.READY]
