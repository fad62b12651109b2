"""The agent dies, is away, and comes back (B01-B04, B11, B18, B23, B25)."""

import asyncio
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scenarios import FaultProfile, scenario
from tests.support.world import KILL_GRACE_S, LEASE_S, World
from tests.support.world_processes import boot_seconds, wait_for_end
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import DisconnectPolicy
from windlass_proto.model.states import AttemptState, JobState

KILLED = -9
AT_START = (
    "agent.adopt.before",
    "agent.adopt.after_slots",
    "agent.adopt.before_strangers",
    "agent.adopt.after",
)
WITH_WORK = (
    "agent.session.after_reply",
    "agent.poll.after_accept",
    "agent.intent.after_write",
    "agent.handover.before",
    "agent.handover.after",
    "agent.exit.before_report",
    "agent.report.after_reply",
    "agent.forget.before_write",
    "agent.forget.after_write",
)
QUICK = ("agent.handover.after",)
PATIENT: dict[str, Any] = {"disconnect": DisconnectPolicy.NO_OVERLAP, "run_for": timedelta(minutes=2)}
"""For who must find his attempts where they were, however long a slow machine takes to start him."""


@scenario("B01")
async def test_b01_commands_keep_their_processes_when_their_agent_dies(
    world: World, profile: FaultProfile
) -> None:
    count = profile.of(quick=3, full=10)
    await world.start(slots=count)
    (agent,) = world.agents
    gate = world.gate()
    body = f"i=0; {gate.wait.replace('sleep', 'echo $i; i=$((i+1)); sleep')}; echo end; exit $WINDLASS_INDEX"
    job = await world.submit(world.task(body, instances=count, **PATIENT), fail_on_instance_failure=False)
    await world.until_started(job, count=count)
    keepers, commands = agent.keepers(), set(agent.commands())
    mains = {entry.pid for entry in world.ledger.starts(job)}
    agent.kill()
    await world.lasts(profile.of(quick=0.5, full=5.0))
    assert mains <= set(agent.commands())
    agent.start_again()
    await world.until(lambda: agent.said.count("session.opened") == 2)
    assert agent.keepers() == keepers
    assert mains <= commands & set(agent.commands())
    gate.open()
    await world.wait(job)
    for index in range(count):
        (attempt,) = await world.attempts(job, index)
        assert (attempt.attempt, attempt.exit_code) == (1, index)
        *numbers, last = (await world.log(job, index)).split()
        assert numbers == [b"%d" % number for number in range(len(numbers))]
        assert last == b"end"
    assert len(world.ledger.starts(job)) == count


@scenario("B02")
async def test_b02_what_ends_while_no_agent_is_there_is_told_exactly(world: World) -> None:
    await world.start(slots=3)
    (agent,) = world.agents
    gate = world.gate()
    bodies = {"good": "true", "seven": "exit 7", "crash": "kill -SEGV $$"}
    tasks = [world.task(f"{gate.wait}; {body}", name=name) for name, body in bodies.items()]
    job = await world.submit(*tasks, fail_on_instance_failure=False)
    await world.until_started(job, count=3)
    agent.kill()
    gate.open()
    await world.until(lambda: agent.commands() == [])
    await world.lasts(1.5)
    agent.start_again()
    await world.wait(job)
    found = {one.task: one.attempts for one in await world.instances(job)}
    ends = {name: (a.state, a.failure, a.exit_code, a.exit_signal) for name, (a,) in found.items()}
    assert ends == {
        "good": (AttemptState.SUCCEEDED, None, 0, None),
        "seven": (AttemptState.FAILED, FailureKind.USER_EXIT, 7, None),
        "crash": (AttemptState.FAILED, FailureKind.USER_SIGNAL, None, signal.SIGSEGV),
    }
    took = {entry.task: entry.at_s for entry in world.ledger.ends(job)}
    began = {entry.task: entry.at_s for entry in world.ledger.starts(job)}
    for name in ("good", "seven"):
        ran_for = found[name][0].ran_for
        assert ran_for is not None
        assert abs(ran_for.total_seconds() - (took[name] - began[name])) < 0.5


@scenario("B03")
@pytest.mark.parametrize("failpoint", QUICK)
async def test_b03_an_agent_killed_at_a_failpoint_twice_in_a_row_starts_nothing_twice(
    world: World, failpoint: str
) -> None:
    await _killed_twice_at(world, failpoint)


@scenario("B03", quick=False)
@pytest.mark.parametrize("failpoint", [one for one in AT_START + WITH_WORK if one not in QUICK])
async def test_b03_an_agent_killed_at_any_failpoint_twice_in_a_row_starts_nothing_twice(
    world: World, failpoint: str
) -> None:
    await _killed_twice_at(world, failpoint)


async def _killed_twice_at(world: World, failpoint: str) -> None:
    await world.start(slots=4)
    (agent,) = world.agents
    gate = world.gate()
    running = await world.submit(world.task(gate.wait, instances=2, **PATIENT))
    await world.until_started(running, count=2)
    agent.kill()
    jobs: list[JobId] = []
    for _ in range(2):
        agent.start_again(failpoint=failpoint)
        if failpoint in WITH_WORK:
            tasks = (world.task("true", name="good"), world.task("exit 3", name="bad"))
            jobs.append(await world.submit(*tasks, fail_on_instance_failure=False))
        assert await asyncio.to_thread(agent.exit_code) == KILLED
    agent.start_again()
    gate.open()
    assert (await world.wait(running)).state is JobState.SUCCEEDED
    assert [len(one.attempts) for one in await world.instances(running)] == [1, 1]
    for job in jobs:
        assert (await world.wait(job)).state is JobState.FAILED
        codes = {one.task: one.attempts[-1].exit_code for one in await world.instances(job)}
        assert codes == {"good": 0, "bad": 3}
    tries = [entry.try_ for entry in world.ledger.starts()]
    assert len(tries) == len(set(tries))


@scenario("B04", quick=False)
async def test_b04_a_command_that_was_replaced_is_ended_when_its_agent_comes_back(world: World) -> None:
    await world.start(agents=2, slots=1)
    gate = world.gate()
    job = await world.submit(world.task(gate.wait, ticks=True))
    await world.until_running(job)
    (attempt,) = await world.attempts(job)
    (lost,) = [one for one in world.agents if one.name == attempt.node_name]
    lost.kill()
    await world.until_started(job, attempt=2)
    old = lost.commands()
    assert old
    lost.start_again()
    await world.until(lambda: lost.said.count("session.opened") == 2)
    await asyncio.to_thread(wait_for_end, old, within_s=5.0 + KILL_GRACE_S)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    first, second = await world.attempts(job)
    assert (first.state, first.failure) == (AttemptState.LOST, FailureKind.INFRA_NODE_LOST)
    assert (second.state, second.node_name != first.node_name) == (AttemptState.SUCCEEDED, True)


@scenario("B11", quick=False)
async def test_b11_a_timeout_is_kept_while_no_agent_is_there(world: World) -> None:
    await world.start(slots=1)
    (agent,) = world.agents
    job = await world.submit(world.task("sleep 1000", ticks=True, timeout=timedelta(seconds=3)))
    await world.until_started(job)
    agent.kill()
    await world.until(lambda: agent.commands() == [])
    (start,) = world.ledger.starts(job)
    last = max(entry.at_s for entry in world.ledger.entries())
    assert 2.0 <= last - start.at_s <= 3.0 + KILL_GRACE_S + 2.0
    agent.start_again()
    assert (await world.wait(job)).state is JobState.FAILED
    (attempt,) = await world.attempts(job)
    assert attempt.failure is FailureKind.TIMEOUT
    assert attempt.ran_for is not None
    assert 3.0 <= attempt.ran_for.total_seconds() <= 3.0 + KILL_GRACE_S + 2.0


@scenario("B11", quick=False)
async def test_b11_a_command_that_must_not_outlive_the_lease_is_ended_while_no_agent_is_there(
    world: World,
) -> None:
    await world.start(agents=2, slots=1)
    job = await world.submit(
        world.task(
            "[ $WINDLASS_ATTEMPT -gt 1 ] || sleep 1000", ticks=True, disconnect=DisconnectPolicy.FAST_REPLACE
        )
    )
    await world.until_running(job)
    (attempt,) = await world.attempts(job)
    (lost,) = [one for one in world.agents if one.name == attempt.node_name]
    lost.kill()
    killed_at = boot_seconds()
    await world.until(lambda: lost.commands() == [])
    last = max(entry.at_s for entry in world.ledger.entries() if entry.attempt == 1)
    assert last - killed_at <= LEASE_S + KILL_GRACE_S + 1.0
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    (second,) = [entry for entry in world.ledger.starts(job) if entry.attempt == 2]
    assert second.at_s > last
    lost.start_again()
    await world.until(lambda: lost.said.count("session.opened") == 2)
    first, _ = await world.attempts(job)
    assert (first.state, first.failure) == (AttemptState.LOST, FailureKind.INFRA_NODE_LOST)


@scenario("B18", quick=False)
async def test_b18_commands_survive_when_the_agent_is_stopped_and_started(world: World) -> None:
    """What `systemctl restart` does with KillMode=process: SIGTERM to the agent alone, then a new one."""
    await world.start(slots=2)
    (agent,) = world.agents
    gate = world.gate()
    job = await world.submit(world.task(f"{gate.wait}; echo out", instances=2))
    await world.until_started(job, count=2)
    mains = {entry.pid for entry in world.ledger.starts(job)}
    for life in (2, 3):
        assert await asyncio.to_thread(agent.terminate) == 0
        assert mains <= set(agent.commands())
        agent.start_again()
        await world.until(lambda life=life: agent.said.count("session.opened") == life)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert [len(one.attempts) for one in await world.instances(job)] == [1, 1]
    assert await world.log(job, 1) == b"out\n"


@scenario("B23", quick=False)
@pytest.mark.parametrize("failpoint", ["keeper.intent.after_write", "keeper.start.before_exec"])
async def test_b23_around_a_start_either_nothing_ran_or_a_record_exists(world: World, failpoint: str) -> None:
    await world.start(agents=0)
    agent = await world.add_agent(slots=1, failpoint=failpoint)
    job = await world.submit(world.task("true"))
    await world.until(lambda: b'"intent"' in _journal(agent.state))
    agent.kill()
    assert world.ledger.starts(job) == []
    await world.until(lambda: agent.keepers() == [])
    agent.start_again()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    *lost, last = await world.attempts(job)  # the agent may have tried a second keeper before it died
    assert {one.state for one in lost} == {AttemptState.LOST}
    assert last.state is AttemptState.SUCCEEDED
    assert [entry.attempt for entry in world.ledger.starts(job)] == [last.attempt]


@scenario("B23", quick=False)
async def test_b23_after_a_start_the_record_tells_of_the_process_that_was_begun(world: World) -> None:
    await world.start(agents=0)
    agent = await world.add_agent(slots=1, failpoint="keeper.start.after_write")
    job = await world.submit(world.task("sleep 1000"))
    await world.until(lambda: b'"start"' in _journal(agent.state))
    agent.kill()
    agent.start_again()
    await world.until_started(job, attempt=2)
    (first, _) = await world.attempts(job)
    assert (first.state, first.failure) == (AttemptState.LOST, FailureKind.INFRA_KEEPER_LOST)
    began = [entry.pid for entry in world.ledger.starts(job) if entry.attempt == 1]
    await asyncio.to_thread(wait_for_end, began)


def _journal(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in state.glob("slots/*/journal.*"))


@scenario("B25")
async def test_b25_a_second_agent_on_the_same_state_ends_at_once(world: World) -> None:
    await world.start(slots=1)
    (agent,) = world.agents
    gate = world.gate()
    job = await world.submit(world.task(gate.wait))
    await world.until_started(job)
    second = await asyncio.create_subprocess_exec(
        *agent.command,
        env=agent.environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(second.communicate(), 20.0)
    assert second.returncode == 1
    assert b"another agent uses the state directory" in said
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    (attempt,) = await world.attempts(job)
    assert attempt.attempt == 1
