"""Wall clocks jump, processes stand still, thousands of agents come back at once (C11, C12, C15, C16)."""

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.scenarios import NotRun, scenario
from tests.support import wall_clock
from tests.support.grpc_proxy import grpc_proxy
from tests.support.wall_clock import WallClock, build_wall_clock
from tests.support.world import LEASE_S, SILENT_AFTER_S, World
from windlass_proto.model.states import AttemptState, JobState, NodeState

A_DAY_S = 24 * 3600


def clock_of(world: World) -> WallClock:
    if why := wall_clock.lacking():
        raise NotRun(why)
    return build_wall_clock(world.directory)


@scenario("C11", quick=False)
async def test_c11_a_coordinator_whose_clock_jumps_a_day_ends_no_lease_and_no_timeout(world: World) -> None:
    clock = clock_of(world)
    world.coordinator.environment |= clock.variables
    await world.start()
    gate = world.gate()
    job = await world.submit(world.task(gate.wait, timeout=timedelta(hours=1)))
    failing = await world.submit(world.task("[ $WINDLASS_ATTEMPT = 3 ]", max_retries=5))
    await world.until_started(job)
    clock.set(A_DAY_S)
    await world.lasts(2 * SILENT_AFTER_S)
    (node,) = await world.client.nodes()
    assert node.state is NodeState.READY
    assert (await world.wait(failing)).state is JobState.SUCCEEDED
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert [attempt.state for attempt in await world.attempts(job)] == [AttemptState.SUCCEEDED]
    assert "node.silent" not in world.coordinator.said
    assert "clock.moved" in world.coordinator.said


@scenario("C12")
@pytest.mark.parametrize("offset_s", [-3600, pytest.param(3 * 3600, marks=pytest.mark.full_only)])
async def test_c12_an_agent_whose_clock_is_hours_off_tells_exact_durations(
    world: World, offset_s: int
) -> None:
    clock = clock_of(world)
    clock.set(offset_s)
    await world.start(agents=0)
    await world.add_agent(extra=clock.variables)
    job = await world.submit("sleep 1")
    status = await world.wait(job)
    assert status.state is JobState.SUCCEEDED
    (attempt,) = await world.attempts(job)
    start, end = world.ledger.entries()
    assert attempt.ran_for is not None
    assert abs(attempt.ran_for.total_seconds() - (end.at_s - start.at_s)) < 0.5
    assert attempt.started_at is not None
    assert attempt.ended_at is not None
    assert status.ended_at is not None
    assert status.submitted_at <= attempt.started_at <= attempt.ended_at <= status.ended_at


@scenario("C15", quick=False, limit_s=1800)
@pytest.mark.parametrize("agents", [2_000, 10_000])
async def test_c15_thousands_of_agents_come_back_after_a_restart(world: World, agents: int) -> None:
    # The fleet of the benchmarks: each agent has a connection, a session and a poll, and starts nothing.
    repository = Path(__file__).parents[2]
    measured = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "benchmarks", "fleet_restart"],
        capture_output=True,
        text=True,
        cwd=repository,
        env=world.coordinator.environment | {"FLEET": f"100,{agents}", "FLEET_IDLE_S": "1"},
        check=False,
        timeout=1500,
    )
    lines = [json.loads(line) for line in measured.stdout.splitlines() if line.startswith("{")]
    assert [line["figure"] for line in lines] == ["fleet_restart"], measured.stderr[-2000:]
    (restart,) = lines
    before, after = restart["rss_mib_before_after"]
    assert restart["value"] < 60
    assert restart["false_losses"] == 0
    assert restart["submit_p99_ms"] < 1_000
    assert after < 1.5 * before


@scenario("C16")
@pytest.mark.parametrize("is_replaced", [False, pytest.param(True, marks=pytest.mark.full_only)])
async def test_c16_an_agent_that_was_frozen_opens_a_session_before_anything_else(
    world: World, is_replaced: bool
) -> None:
    proxy = world.stack.enter_context(grpc_proxy(world.coordinator.address))
    await world.start(via=proxy.address, settings={} if is_replaced else {"LEASE_REPLACE_AFTER": "60s"})
    gate = world.gate()
    job = await world.submit(world.task(gate.wait))
    await world.until_started(job)
    (agent,) = world.agents
    await world.until(lambda: proxy.calls["Report"] > 0)
    if is_replaced:
        await world.add_agent()
    agent.pause()
    await world.lasts(1.5 * LEASE_S)
    if is_replaced:
        await world.until_started(job, attempt=2)
    else:
        await world.until_node(agent, NodeState.SILENT)
    proxy.recorded.clear()
    agent.resume()
    await world.until(lambda: bool(proxy.recorded))
    await world.until_node(agent, NodeState.READY)
    if is_replaced:
        await world.until(lambda: agent.commands() == [])
    assert proxy.recorded[0].method.endswith("/OpenSession")
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    states = [attempt.state for attempt in await world.attempts(job)]
    assert states == ([AttemptState.LOST] if is_replaced else []) + [AttemptState.SUCCEEDED]
