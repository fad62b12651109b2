"""Connections are cut, swallowed, reset, narrow; names do not resolve (C01-C05, C09, C10, C14)."""

import asyncio
import random
from datetime import timedelta

import pytest

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support import netns
from tests.support.chaos_proxy import ChaosProxy, chaos_proxy
from tests.support.world import LEASE_S, REPLACE_AFTER_S, Gate, World
from tests.support.world_processes import AgentProgram
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import DisconnectPolicy
from windlass_proto.model.states import AttemptState, JobState, NodeState

LATE = {"LEASE_REPLACE_AFTER": "60s"}
"""So that a node can be silent for a while and nothing of it is given to another."""


def proxy_of(world: World) -> ChaosProxy:
    return world.stack.enter_context(chaos_proxy(world.coordinator.address))


async def running_behind(world: World, proxy: ChaosProxy, **task: object) -> tuple[JobId, Gate]:
    """A coordinator, an agent behind the proxy, and a command on it that waits for its gate."""
    await world.start(via=proxy.address)
    gate = world.gate()
    job = await world.submit(world.task(f"echo begin; {gate.wait}; echo end", **task))
    await world.until_started(job)
    return job, gate


async def goes_on_as_if_nothing_had_been(world: World, job: JobId, gate: Gate) -> None:
    await world.until_node(world.agents[0], NodeState.READY)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert [attempt.state for attempt in await world.attempts(job)] == [AttemptState.SUCCEEDED]
    assert len(world.ledger.starts(job)) == 1
    assert await world.log(job) == b"begin\nend\n"


@scenario("C01")
async def test_c01_a_cut_shorter_than_replacement_costs_nothing(world: World) -> None:
    world.coordinator.settings |= LATE
    proxy = proxy_of(world)
    job, gate = await running_behind(world, proxy)
    proxy.cut()
    await world.lasts(1.2 * LEASE_S)
    await world.until_node(world.agents[0], NodeState.SILENT)
    proxy.heal()
    await goes_on_as_if_nothing_had_been(world, job, gate)


async def replaced_behind(
    world: World, proxy: ChaosProxy, **task: object
) -> tuple[JobId, Gate, AgentProgram]:
    """The first attempt runs behind the proxy, which is cut; the second begins on another node."""
    job, gate = await running_behind(world, proxy, ticks=True, **task)
    spare = await world.add_agent()
    proxy.cut()
    await world.until_started(job, attempt=2)
    return job, gate, spare


async def the_second_won(world: World, job: JobId) -> None:
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    states = [attempt.state for attempt in await world.attempts(job)]
    assert states == [AttemptState.LOST, AttemptState.SUCCEEDED]
    (instance,) = await world.instances(job)
    assert (instance.user_failures, instance.infra_failures) == (0, 1)
    assert len(world.ledger.starts(job)) == 2


@scenario("C02")
async def test_c02_two_copies_that_both_finish_make_one_result(world: World) -> None:
    proxy = proxy_of(world)
    job, gate, _ = await replaced_behind(world, proxy)
    gate.open()
    await world.until(lambda: len(world.ledger.ends(job)) == 2)
    proxy.heal()
    await the_second_won(world, job)
    await world.until_node(world.agents[0], NodeState.READY)


@scenario("C02", quick=False)
async def test_c02_without_overlap_the_first_copy_has_ended_before_the_second_begins(world: World) -> None:
    world.coordinator.settings["LEASE_KILL_GRACE"] = "2s"
    proxy = proxy_of(world)
    policy = {"disconnect": DisconnectPolicy.NO_OVERLAP, "run_for": timedelta(seconds=2)}
    job, gate, _ = await replaced_behind(world, proxy, **policy)
    assert world.agents[0].commands() == []
    gate.open()
    await the_second_won(world, job)
    assert world.ledger.overlaps() == []
    proxy.heal()
    await world.until_node(world.agents[0], NodeState.READY)


@scenario("C03", quick=False)
async def test_c03_a_node_that_is_heard_but_hears_nothing_goes_on(world: World) -> None:
    world.coordinator.settings |= LATE
    proxy = proxy_of(world)
    job, gate = await running_behind(world, proxy)
    proxy.down.held = True
    await world.until(lambda: "lease_expired=true" in world.agents[0].said)
    await world.lasts(REPLACE_AFTER_S)
    proxy.heal()
    await goes_on_as_if_nothing_had_been(world, job, gate)


@scenario("C03")
async def test_c03_a_node_that_hears_but_is_not_heard_is_replaced(world: World) -> None:
    proxy = proxy_of(world)
    job, gate = await running_behind(world, proxy)
    await world.add_agent()
    proxy.up.held = True
    await world.until_started(job, attempt=2)
    gate.open()
    proxy.heal()
    await the_second_won(world, job)
    await world.until_node(world.agents[0], NodeState.READY)


@scenario("C03", quick=False)
@pytest.mark.parametrize("way", ["to_near", "to_far"])
async def test_c03_one_way_that_is_cut_by_the_kernel_counts_as_both(world: World, way: str) -> None:
    if why := netns.lacking():
        raise NotRun(why)
    cable = world.stack.enter_context(netns.cable(3))
    world.coordinator = world.new_coordinator(world.coordinator.data, host=cable.near)
    await world.start(agents=0, settings={"INSECURE_LISTEN": "true"})
    cut_off = await world.add_agent(prefix=cable.prefix)
    gate = world.gate()
    job = await world.submit(world.task(gate.wait))
    await world.until_started(job)
    await world.add_agent()
    cable.drop(to_near=way == "to_near", to_far=way == "to_far")
    await world.until_started(job, attempt=2)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    cable.heal()
    await world.until_node(cut_off, NodeState.READY)
    await the_second_won(world, job)


@scenario("C04", quick=False)
async def test_c04_a_connection_that_swallows_everything_is_given_up_and_polls_are_answered_again(
    world: World,
) -> None:
    proxy = proxy_of(world)
    settings = {"LINK_KEEPALIVE": "10s", "LINK_KEEPALIVE_TIMEOUT": "2s"}
    await world.start(via=proxy.address, settings=LATE, agent_settings=settings)
    await world.until(lambda: world.coordinator.metric("windlass_polls_parked") == 1)
    before = proxy.connections
    proxy.swallow()
    job = await world.submit("true")
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert proxy.connections > before
    (instance,) = await world.instances(job)
    assert (instance.user_failures, instance.infra_failures) == (0, 0)


@scenario("C05")
async def test_c05_connections_that_are_always_reset_bring_everything_in_the_end(
    world: World, profile: FaultProfile
) -> None:
    lines = profile.of(quick=5_000, full=100_000)
    proxy = proxy_of(world)
    settings = {"LINK_LOG_CHUNK_BYTES": "4096", "LINK_RETRY_CEILING": "200ms"}
    await world.start(via=proxy.address, settings=LATE, agent_settings=settings)
    proxy.reset_after(3_000, 40_000)
    proxy.reset()
    job = await world.submit(world.task(f"seq 1 {lines}; exit 0", instances=2), key="once")
    assert (await world.wait(job, within_s=240)).state is JobState.SUCCEEDED
    for index in range(2):
        assert await world.log(job, index) == b"".join(b"%d\n" % n for n in range(1, lines + 1))
    assert len(world.ledger.starts(job)) == 2
    assert proxy.connections > 4
    proxy.keep()


@scenario("C09", quick=False)
async def test_c09_a_narrow_line_full_of_logs_lets_heartbeats_through(world: World) -> None:
    proxy = proxy_of(world)
    await world.start(via=proxy.address, agent_settings={"LINK_LOG_CHUNK_BYTES": "4096"})
    await world.wait(await world.submit("true"))
    proxy.up.bytes_per_s = proxy.down.bytes_per_s = 16_000 / 8
    job = await world.submit(world.task("seq 1 12000"))
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    async with asyncio.timeout(200):
        chunks = [chunk async for chunk in world.client.follow_log(job, "t", 0)]
    assert b"".join(chunk.data for chunk in chunks) == b"".join(b"%d\n" % n for n in range(1, 12_001))
    assert "node.silent" not in world.coordinator.said
    proxy.up.bytes_per_s = proxy.down.bytes_per_s = 0


@scenario("C10")
async def test_c10_a_name_that_nobody_knows_is_asked_for_again_and_again(world: World) -> None:
    await world.start(agents=0)
    lost = await world.add_agent(via="no-such-host.invalid:7450", wait=False)
    await world.until(lambda: lost.said.count("call.failed") >= 4)
    assert lost.is_running
    assert lost.said.count("call.failed") < 60
    assert lost.end(2) == 0


@scenario("C10")
async def test_c10_of_two_addresses_the_one_that_lives_is_used(world: World) -> None:
    world.coordinator.settings |= LATE
    await world.start(agents=0)
    first, second = proxy_of(world), proxy_of(world)
    both = f"{first.address},{second.address}"
    first.refuse()
    await world.add_agent(via=both)
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED
    assert (first.connections, second.connections > 0) == (0, True)
    second.refuse()
    first.accept()
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED
    assert first.connections > 0


@scenario("C14", quick=False, limit_s=900)
async def test_c14_links_that_clog_one_by_one_and_heal_in_another_order_lose_nothing(
    world: World, profile: FaultProfile
) -> None:
    count, rng = profile.of(quick=3, full=20), random.Random(14)
    await world.start(agents=0)
    proxies = [proxy_of(world) for _ in range(count)]
    for proxy in proxies:
        await world.add_agent(slots=2, via=proxy.address, wait=False)
    await world.until_ready(*world.agents)
    body = "sleep 0.$((WINDLASS_INDEX % 10)); exit $((WINDLASS_INDEX % 2))"
    job = await world.submit(
        world.task(body, instances=count * 15, max_retries=0), fail_on_instance_failure=False
    )
    await world.until_started(job, count)
    for proxy in proxies:
        proxy.cut()
        await world.lasts(5 / count)
    await world.lasts(REPLACE_AFTER_S)
    for proxy in rng.sample(proxies, count):
        proxy.heal()
        await world.lasts(rng.uniform(0, 10 / count))
    assert (await world.wait(job, within_s=300)).state is JobState.FAILED
    for instance in await world.instances(job):
        last = instance.attempts[-1]
        assert (last.exit_code, instance.user_failures) == (instance.index % 2, instance.index % 2)
    for agent in world.agents:
        await world.until_node(agent, NodeState.READY)
