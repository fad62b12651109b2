"""What happens to a whole node: B15-B17 (reboot, damaged and deleted state), B19 (upgrade), B24, B26."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support.world import World
from tests.support.world_processes import AgentProgram, boot_seconds, wait_for_end
from windlass_agent.spool.durable import json_line, read_json_lines
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import AttemptState, JobState, NodeState

Damage = Callable[[bytes], bytes]
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


async def running_jobs(world: World, count: int, wait: str) -> list[JobId]:
    jobs = [await world.submit(world.task(wait)) for _ in range(count)]
    for job in jobs:
        await world.until_running(job)
    return jobs


@scenario("B15", quick=False)
async def test_b15_attempts_of_an_earlier_boot_without_a_record_are_lost(world: World) -> None:
    boot = world.directory / "boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    elsewhere = ["unshare", "--mount", "sh", "-c", f'mount --bind {boot} {BOOT_ID} && exec "$@"', "sh"]
    probe = [*elsewhere, "cat", str(BOOT_ID)]
    if subprocess.run(probe, capture_output=True, check=False).stdout != boot.read_bytes():
        raise NotRun("may not make a mount namespace")
    await world.start(agents=0)
    agent = await world.add_agent(slots=2, prefix=elsewhere)
    gate, ends = world.gate(), world.gate()
    running = await world.submit(world.task(gate.wait, name="running"))
    ended = await world.submit(world.task(f"{ends.wait}; exit 4", name="ended"))
    await world.until_running(running)
    await world.until_running(ended)
    agent.kill()
    ends.open()
    await world.until(lambda: b'"exit"' in _journals(agent))
    agent.kill_all()
    boot.write_text(f"{uuid.uuid4()}\n")
    gate.open()
    agent.start_again()
    assert (await world.wait(running)).state is JobState.SUCCEEDED
    first, second = await world.attempts(running, task="running")
    assert (first.state, first.failure) == (AttemptState.LOST, FailureKind.INFRA_NODE_LOST)
    assert (second.state, second.attempt) == (AttemptState.SUCCEEDED, 2)
    await world.wait(ended)
    (attempt,) = await world.attempts(ended, task="ended")
    assert (attempt.failure, attempt.exit_code) == (FailureKind.USER_EXIT, 4)


def _journals(agent: AgentProgram) -> bytes:
    return b"".join(path.read_bytes() for path in agent.state.glob("slots/*/journal.*"))


def _cut(line: bytes) -> bytes:
    return line[: len(line) // 2] + b"\n"


def _zeroed(line: bytes) -> bytes:
    return b"\0" * (len(line) - 1) + b"\n"


def _garbage(line: bytes) -> bytes:
    return os.urandom(len(line) - 1).replace(b"\n", b"\r") + b"\n"


def _of_another(line: bytes) -> bytes:
    record = json.loads(line)
    record["index"], record["task_key"] = [77], 4711
    return json_line(record)


@scenario("B16")
@pytest.mark.parametrize("damage", [_zeroed])
async def test_b16_a_damaged_assignment_costs_that_attempt_alone(world: World, damage: Damage) -> None:
    await _damage_one_assignment(world, damage)


@scenario("B16", quick=False)
@pytest.mark.parametrize("damage", [_cut, _garbage, _of_another])
async def test_b16_a_torn_assignment_costs_that_attempt_alone(world: World, damage: Damage) -> None:
    await _damage_one_assignment(world, damage)


async def _damage_one_assignment(world: World, damage: Damage) -> None:
    await world.start(slots=3)
    (agent,) = world.agents
    gate = world.gate()
    jobs = await running_jobs(world, 3, gate.wait)
    agent.kill()
    lines = (agent.state / "intents").read_bytes().rstrip(b"\0").splitlines(keepends=True)
    hit = next(n for n, line in enumerate(lines) if jobs[1].encode() in line)
    lines[hit] = damage(lines[hit])
    (agent.state / "intents").write_bytes(b"".join(lines))
    victims = [entry.pid for entry in world.ledger.starts(jobs[1])]
    agent.start_again()
    await asyncio.to_thread(wait_for_end, victims)
    gate.open()
    for job in jobs:
        assert (await world.wait(job)).state is JobState.SUCCEEDED
    tries = [[attempt.state for attempt in await world.attempts(job)] for job in jobs]
    assert tries == [
        [AttemptState.SUCCEEDED],
        [AttemptState.LOST, AttemptState.SUCCEEDED],
        [AttemptState.SUCCEEDED],
    ]
    if damage is not _of_another:
        assert [path.name.split("-")[1] for path in (agent.state / "evidence").iterdir()] == ["intents"]


@scenario("B16", quick=False)
async def test_b16_a_damaged_exit_record_is_never_a_success(world: World) -> None:
    await world.start(slots=2)
    (agent,) = world.agents
    gate = world.gate()
    jobs = await running_jobs(world, 2, gate.wait)
    agent.kill()
    gate.open()
    await world.until(lambda: _journals(agent).count(b'"exit"') == 2)
    keepers = agent.keepers()
    for keeper in keepers:
        os.kill(keeper, signal.SIGKILL)
    await asyncio.to_thread(wait_for_end, keepers)
    journal = sorted(agent.state.glob("slots/*/journal.*"))[0]
    journal.write_bytes(journal.read_bytes().replace(b'"status":0', b'"status":"'))
    agent.start_again()
    for job in jobs:
        assert (await world.wait(job)).state is JobState.SUCCEEDED
    states = [[attempt.state for attempt in await world.attempts(job)] for job in jobs]
    assert sorted(states) == [[AttemptState.LOST, AttemptState.SUCCEEDED], [AttemptState.SUCCEEDED]]
    assert read_json_lines(journal).damaged or not journal.exists()


@scenario("B17")
async def test_b17_what_ran_for_a_deleted_state_directory_is_ended_by_its_agent(world: World) -> None:
    await world.start(slots=1)
    (agent,) = world.agents
    gate = world.gate()
    job = await world.submit(world.task(gate.wait))
    await world.until_running(job)
    commands, keepers = agent.commands(), agent.keepers()
    shutil.rmtree(agent.state)
    assert await asyncio.to_thread(agent.exit_code) == 1
    assert f"the state directory {agent.state} was removed" in agent.said
    await asyncio.to_thread(wait_for_end, [*commands, *keepers])
    agent.start_again()
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    first, second = await world.attempts(job)
    assert (first.state, first.failure) == (AttemptState.LOST, FailureKind.INFRA_NODE_LOST)
    assert second.node_id != first.node_id


@scenario("B17", quick=False)
async def test_b17_what_a_deleted_state_directory_left_is_found_by_the_next_agent(world: World) -> None:
    await world.start(slots=1)
    (agent,) = world.agents
    gate = world.gate()
    job = await world.submit(world.task(gate.wait))
    await world.until_running(job)
    commands, keepers = agent.commands(), agent.keepers()
    agent.kill()
    shutil.rmtree(agent.state)
    agent.start_again()
    await asyncio.to_thread(wait_for_end, [*commands, *keepers])
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    first, second = await world.attempts(job)
    assert (first.state, second.state) == (AttemptState.LOST, AttemptState.SUCCEEDED)


@scenario("B19")
async def test_b19_an_agent_is_upgraded_under_running_commands(world: World) -> None:
    """The next version's files lie elsewhere, and its keepers tell another build."""
    await world.start(slots=2)
    (agent,) = world.agents
    gate = world.gate()
    job = await world.submit(world.task(f"{gate.wait}; exit 3", instances=1))
    await world.until_started(job)
    (keeper,) = agent.keepers()
    newer = _installed_elsewhere(world.directory / "next", version="99.0")
    assert await asyncio.to_thread(agent.terminate) == 0
    agent.environment["PYTHONPATH"] = str(newer)
    agent.start_again()
    await world.until(lambda: agent.said.count("session.opened") == 2)
    (node,) = await world.client.nodes()
    assert node.agent_version == "99.0"
    assert agent.keepers() == [keeper]
    gate.open()
    await world.wait(job)
    (attempt,) = await world.attempts(job)
    assert (attempt.attempt, attempt.exit_code) == (1, 3)
    await asyncio.to_thread(wait_for_end, [keeper])  # its slot is idle: the next build has its own
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED


def _installed_elsewhere(directory: Path, *, version: str) -> Path:
    """The same programs as if the next version were installed."""
    import windlass_agent
    import windlass_proto

    for package in (windlass_agent, windlass_proto):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, directory / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    about = directory / f"windlass-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: windlass\nVersion: {version}\n")
    return directory


@scenario("B24")
async def test_b24_a_preempted_nodes_work_is_ended_told_and_replaced_at_once(world: World) -> None:
    await world.start(agents=2, slots=1)
    gate = world.gate()
    polite = f"trap 'echo told; exit 0' TERM; {gate.wait}"
    job = await world.submit(world.task(polite, ticks=False))
    await world.until_running(job)
    (attempt,) = await world.attempts(job)
    (leaving,) = [one for one in world.agents if one.name == attempt.node_name]
    noticed_at = boot_seconds()
    notice = [sys.executable, "-m", "windlass_agent.daemon", "notice"]
    subprocess.run([*notice, "--state", str(leaving.state), "--in", "10s"], check=True)
    await world.until_started(job, attempt=2)
    assert boot_seconds() - noticed_at < 8.0
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert await asyncio.to_thread(leaving.exit_code) == 0
    (instance,) = await world.instances(job)
    first, second = instance.attempts
    assert (first.state, first.failure) == (AttemptState.LOST, FailureKind.PREEMPTED)
    assert (instance.user_failures, instance.infra_failures) == (0, 1)
    assert second.node_name != first.node_name
    assert await world.log(job, attempt=1) == b"told\n"
    await world.until_node(leaving, NodeState.GONE)


@scenario("B24", quick=False)
async def test_b24_a_command_that_ignores_the_notice_is_killed_in_time(world: World) -> None:
    await world.start(agents=2, slots=1)
    gate = world.gate()
    job = await world.submit(world.task(f"[ $WINDLASS_ATTEMPT -gt 1 ] || (trap '' TERM; {gate.wait})"))
    await world.until_running(job)
    (attempt,) = await world.attempts(job)
    (leaving,) = [one for one in world.agents if one.name == attempt.node_name]
    leaving.settings["WORK_KILL_GRACE"] = "60s"
    commands = leaving.commands()
    notice = [sys.executable, "-m", "windlass_agent.daemon", "notice"]
    subprocess.run([*notice, "--state", str(leaving.state), "--in", "4s"], check=True)
    noticed_at = boot_seconds()
    await asyncio.to_thread(wait_for_end, commands)
    assert boot_seconds() - noticed_at < 4.5
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    first, _ = await world.attempts(job)
    assert (first.state, first.failure) == (AttemptState.LOST, FailureKind.PREEMPTED)
    assert await asyncio.to_thread(leaving.exit_code) == 0


@scenario("B26", quick=False)
async def test_b26_an_agent_with_little_memory_ships_a_burst_of_output(
    world: World, profile: FaultProfile
) -> None:
    groups = Path("/sys/fs/cgroup/memory")
    limit = groups / f"windlass-test-{os.getpid()}"
    if os.geteuid() != 0 or not (groups / "memory.limit_in_bytes").exists():
        raise NotRun("no v1 memory controller that may be used")
    limit.mkdir()
    world.stack.callback(limit.rmdir)
    (limit / "memory.limit_in_bytes").write_text(str(160 << 20))
    inside = ["sh", "-c", f'echo $$ > {limit}/cgroup.procs; exec "$@"', "sh"]
    size = profile.of(quick=64 << 20, full=256 << 20)
    await world.start(agents=0)
    agent = await world.add_agent(slots=2, prefix=inside)
    burst = f"head -c {size} /dev/zero | tr '\\0' x"
    job = await world.submit(world.task(burst, instances=2, timeout=timedelta(minutes=4)))
    while not (await world.client.get(job)).state.is_terminal:
        if not agent.is_running:
            agent.start_again()
        await world.lasts(0.2)
    assert (await world.client.get(job)).state is JobState.SUCCEEDED
    for index in range(2):
        output = await world.log(job, index)
        assert len(output) == size
        assert output.count(b"x") == size
