"""Real earlier versions, from the repository's history: with this one, and replaced by it (U01, U02, B19)."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.scenarios import NotRun, scenario
from tests.support.world import Gate, World
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import JobState

_EARLIER = {
    # The last one whose agents send heartbeats all the time and whose polls say nothing of the node.
    "N-1": "5b40ca90b04b2c629422fce8363b1ba7f7dffe3b",
    # The first one that could run a job.
    "N-2": "0155f9929c70602a77ff307707e3215137241712",
}
_ROOTS = ("proto", "client", "agent", "coordinator")
_REPOSITORY = Path(__file__).parents[2]


def earlier(world: World, version: str) -> dict[str, str]:
    """Variables with which the programs are those of that version."""
    directory = world.directory / "earlier"
    directory.mkdir()
    of_then = ["git", "archive", _EARLIER[version], *_ROOTS]
    history = subprocess.run(of_then, cwd=_REPOSITORY, capture_output=True, check=False)
    if history.returncode:
        raise NotRun(f"this checkout has no history down to {version} ({_EARLIER[version][:7]})")
    subprocess.run(["tar", "-x"], cwd=directory, input=history.stdout, check=True)
    return {"PYTHONPATH": os.pathsep.join(str(directory / root) for root in _ROOTS)}


async def begun(world: World) -> tuple[Gate, JobId]:
    gate = world.gate()
    job = await world.submit(f"echo before; {gate.wait}; echo after")
    await world.until_started(job)
    return gate, job


async def goes_on(world: World, gate: Gate, job: JobId) -> None:
    """As if nothing had been replaced."""
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert await world.log(job) == b"before\nafter\n"
    assert len(await world.attempts(job)) == 1


@scenario("U02", quick=False)
@pytest.mark.parametrize("version", _EARLIER)
async def test_u02_an_agent_of_an_earlier_version_works_and_is_replaced_while_its_command_runs(
    world: World, version: str
) -> None:
    variables = earlier(world, version)
    await world.start(agents=0)
    agent = await world.add_agent(extra=variables)
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED
    failed = await world.submit(world.task("exit 3"))
    assert (await world.wait(failed)).state is JobState.FAILED
    assert [one.exit_code for one in await world.attempts(failed)] == [3]

    gate, job = await begun(world)
    (start,) = world.ledger.starts(job)
    assert await asyncio.to_thread(agent.terminate) == 0
    assert start.pid in agent.commands()
    lives = agent.said.count("session.opened")
    agent.start_again()
    await world.until(lambda: agent.said.count("session.opened") > lives)
    assert start.pid in agent.commands()
    await goes_on(world, gate, job)
    # A keeper of the earlier version gives way when its slot is idle.
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED


@scenario("U01", quick=False)
@pytest.mark.parametrize("version", _EARLIER)
async def test_u01_a_coordinator_of_an_earlier_version_serves_this_agent_and_is_replaced_under_it(
    world: World, version: str
) -> None:
    variables = earlier(world, version)
    world.coordinator.settings.pop("LEASE_RESTART_GRACE")  # N-2 does not know it yet
    world.coordinator.start(extra=variables)
    agent = await world.add_agent()
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED

    gate, job = await begun(world)
    assert await asyncio.to_thread(world.coordinator.terminate) == 0
    world.coordinator.start()
    await world.until_ready(agent)
    await goes_on(world, gate, job)
