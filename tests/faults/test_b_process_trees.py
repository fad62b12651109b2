"""Commands that do not want to end, or take more than they should (B05-B10, B12-B14, B20-B22)."""

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support.fault_mount import fault_mount, lacking
from tests.support.keeper_slots import state_of
from tests.support.world import KILL_GRACE_S, World
from tests.support.world_processes import boot_seconds, wait_for_end
from windlass_agent.runner.cgroups import SlotGroups, find_containment
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import JobId
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import Argv, Command, ShellLine
from windlass_proto.model.states import AttemptState, JobState, NodeState

DAEMONS = """
setsid sleep 98761 > /dev/null 2>&1 < /dev/null &
python3 -c 'import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 10)
        time.sleep(98761)
    os._exit(0)
os.wait()'
"""
BOMB = """
import os, time
while True:
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except OSError:
        time.sleep(0.01)
"""
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"


def python(code: str) -> str:
    """A shell word line that runs it."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def groups_here() -> SlotGroups:
    """What a slot would get on this machine."""
    containment = find_containment(f"test-probe-{os.getpid()}")
    groups = containment.slot_groups(0)
    containment.remove(0)
    return groups


async def ended_as(world: World, job: JobId) -> tuple[AttemptState, FailureKind | None]:
    """Its only attempt."""
    await world.wait(job)
    (attempt,) = await world.attempts(job)
    return attempt.state, attempt.failure


@scenario("B05")
async def test_b05_a_killed_keepers_command_is_ended_and_tried_again(world: World) -> None:
    await world.start(slots=1)
    (agent,) = world.agents
    speak, gate = world.gate(), world.gate()
    job = await world.submit(world.task(f"{speak.wait}; echo attempt $WINDLASS_ATTEMPT; {gate.wait}"))
    await world.until_started(job)
    agent.pause()  # so that the output is nowhere but on the node
    speak.open()
    await world.until(lambda: any(path.stat().st_size for path in agent.state.rglob("stdout.0*")))
    before = agent.commands()
    (keeper,) = agent.keepers()
    os.kill(keeper, signal.SIGKILL)
    agent.resume()
    await asyncio.to_thread(wait_for_end, before)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    (instance,) = await world.instances(job)
    first, second = instance.attempts
    assert (first.state, first.failure) == (AttemptState.LOST, FailureKind.INFRA_KEEPER_LOST)
    assert second.state is AttemptState.SUCCEEDED
    assert (instance.user_failures, instance.infra_failures) == (0, 1)
    assert await world.log(job, attempt=1) == b"attempt 1\n"


@scenario("B06", quick=False)
async def test_b06_a_commands_own_process_killed_is_no_lack_of_memory(world: World) -> None:
    await world.start(slots=1)
    job = await world.submit(world.task("sleep 1000", resources=Resources(memory_bytes=256 << 20)))
    await world.until_started(job)
    (start,) = world.ledger.starts(job)
    os.kill(start.pid, signal.SIGKILL)
    assert await ended_as(world, job) == (AttemptState.FAILED, FailureKind.USER_SIGNAL)
    (attempt,) = await world.attempts(job)
    assert attempt.exit_signal == signal.SIGKILL


@scenario("B07", quick=False)
async def test_b07_what_takes_more_memory_than_allowed_is_ended_alone(world: World) -> None:
    if groups_here().memory is None:
        raise NotRun("no memory controller that may be used")
    await world.start(slots=2)
    (agent,) = world.agents
    gate = world.gate()
    neighbour = await world.submit(world.task(gate.wait))
    await world.until_started(neighbour)
    keepers = agent.keepers()
    code = "import time; parts = []\nwhile True: parts.append(bytearray(8 << 20)); time.sleep(0.002)"
    job = await world.submit(
        world.task(f"sleep 1000 & {python(code)}", resources=Resources(memory_bytes=64 << 20))
    )
    assert await ended_as(world, job) == (AttemptState.FAILED, FailureKind.OOM)
    assert set(keepers) <= set(agent.keepers())
    gate.open()
    assert (await world.wait(neighbour)).state is JobState.SUCCEEDED
    assert [len(one.attempts) for one in await world.instances(neighbour)] == [1]


@scenario("B08")
async def test_b08_a_fork_bomb_is_held_and_ended_by_a_stop(world: World, profile: FaultProfile) -> None:
    if groups_here().pids is None:
        raise NotRun("no pids controller that may be used")
    limit = profile.of(quick=100, full=1000)
    await world.start(slots=1, agent_settings={"WORK_PIDS_MAX": str(limit)})
    (agent,) = world.agents
    job = await world.submit(world.task(python(BOMB)))
    await world.until(lambda: len(agent.commands()) >= limit * 0.9)
    await world.lasts(profile.of(quick=1.0, full=10.0))
    assert len(agent.commands()) <= limit
    await world.stop(job)
    stopped_at = boot_seconds()
    await world.until(lambda: agent.commands() == [])
    assert boot_seconds() - stopped_at < 5.0 + KILL_GRACE_S
    assert (await world.wait(job)).state is JobState.STOPPED
    assert "heartbeat.failed" not in agent.said
    (node,) = await world.client.nodes()
    assert node.state is NodeState.READY


@scenario("B09")
async def test_b09_daemons_that_a_command_left_are_ended_and_counted(world: World) -> None:
    await world.start(slots=1)
    (agent,) = world.agents
    job = await world.submit(world.task(f"{DAEMONS} exit 0"))
    assert await ended_as(world, job) == (AttemptState.SUCCEEDED, None)
    assert agent.commands() == []
    assert not [one for one in psutil.process_iter(["cmdline"]) if "98761" in (one.info["cmdline"] or [])]
    (attempt,) = await world.attempts(job)
    assert attempt.reason == "2 processes that it left were ended"


@scenario("B10", quick=False)
async def test_b10_a_command_that_ignores_sigterm_is_killed_in_time(world: World) -> None:
    await world.start(slots=1)
    job = await world.submit(world.task(ShellLine(line=STUBBORN), timeout=timedelta(seconds=2)))
    assert await ended_as(world, job) == (AttemptState.FAILED, FailureKind.TIMEOUT)
    (attempt,) = await world.attempts(job)
    assert attempt.exit_signal == signal.SIGKILL
    assert attempt.ran_for is not None
    assert 2.0 + KILL_GRACE_S <= attempt.ran_for.total_seconds() <= 2.0 + KILL_GRACE_S + 2.0


@scenario("B12", quick=False)
@pytest.mark.parametrize("how", ["timeout", "stop"])
async def test_b12_a_stopped_process_tree_is_ended_all_the_same(world: World, how: str) -> None:
    await world.start(slots=1)
    (agent,) = world.agents
    limit = timedelta(seconds=2) if how == "timeout" else None
    job = await world.submit(world.task("sleep 1000 & setsid sleep 1000 & wait", timeout=limit))
    await world.until_started(job)
    await world.until(lambda: len(agent.commands()) >= 4)
    tree = agent.commands()
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    if how == "stop":
        await world.stop(job)
    await asyncio.to_thread(wait_for_end, tree)
    state = (await world.wait(job)).state
    (attempt,) = await world.attempts(job)
    if how == "stop":
        assert (state, attempt.state) == (JobState.STOPPED, AttemptState.STOPPED)
    else:
        assert (state, attempt.failure) == (JobState.FAILED, FailureKind.TIMEOUT)


@scenario("B13")
async def test_b13_a_command_that_cannot_be_run_is_the_users_mistake(world: World) -> None:
    plain, wrong, empty = (world.directory / name for name in ("plain", "wrong", "empty"))
    plain.write_text("#!/bin/sh\n")
    wrong.write_text("#!/no/such/interpreter\n")
    wrong.chmod(0o755)
    empty.touch(0o755)
    empty.chmod(0o755)
    commands: dict[str, Command] = {
        "missing": Argv(args=("/no/such/command",)),
        "plain": Argv(args=(str(plain),)),
        "wrong": Argv(args=(str(wrong),)),
        "empty": Argv(args=(str(empty),)),
        "shell": ShellLine(line="/no/such/command"),
    }
    await world.start(slots=2)
    tasks = [world.task(command, name=name) for name, command in commands.items()]
    job = await world.submit(*tasks, fail_on_instance_failure=False)
    await world.wait(job)
    found = {one.task: one for one in await world.instances(job)}
    assert {name: one.attempts[-1].exit_code for name, one in found.items()} == {
        "missing": 127,
        "plain": 126,
        "wrong": 126,
        "empty": 126,
        "shell": 127,
    }
    for name, one in found.items():
        kind = FailureKind.USER_EXIT if name == "shell" else FailureKind.USER_CONFIG
        assert [(attempt.failure) for attempt in one.attempts] == [kind], name
        assert one.infra_failures == 0


@scenario("B14", quick=False)
async def test_b14_orphaned_zombies_are_reaped(world: World, profile: FaultProfile) -> None:
    count = profile.of(quick=500, full=5000)
    await world.start(slots=1)
    (agent,) = world.agents
    code = f"""
import os
for _ in range({count}):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
"""
    gate = world.gate()
    job = await world.submit(world.task(f"{python(code)}; touch {world.directory}/forked; {gate.wait}"))
    await world.until((world.directory / "forked").exists)
    (keeper,) = agent.keepers()

    def zombies() -> int:
        children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
        return len([pid for pid in children if state_of(int(pid)) == "Z"])

    await world.until(lambda: zombies() == 0)  # it looks every few seconds while a command runs
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert zombies() == 0


@scenario("B20", quick=False)
async def test_b20_a_work_directory_that_is_hard_to_remove_holds_nothing_up(
    world: World, profile: FaultProfile
) -> None:
    if os.geteuid() != 0 or shutil.which("chattr") is None:
        raise NotRun("needs root and chattr")
    precious = world.directory / "precious"
    precious.mkdir()
    (precious / "file").touch()
    files, depth = profile.of(quick=(2_000, 1_000), full=(200_000, 1_000))
    code = f"""
import os
for number in range({files}):
    open(f"file-{{number}}", "w").close()
os.mkdir("closed")
open("closed/file", "w").close()
os.chmod("closed", 0o500)
for _ in range({depth}):
    os.mkdir("deeper-and-deeper")
    os.chdir("deeper-and-deeper")
"""
    line = f"mkdir point && mount --bind {precious} point && touch stays && chattr +i stays && {python(code)}"
    await world.start(slots=1)
    (agent,) = world.agents
    job = await world.submit(world.task(line, name="mess"))
    status = await world.wait(job)
    if status.state is not JobState.SUCCEEDED:
        raise NotRun("neither mounts nor immutable files here")
    after = await world.submit(world.task('test -z "$(ls -A .)"'))
    assert (await world.wait(after)).state is JobState.SUCCEEDED
    slot = agent.state / "slots" / "0"

    def left() -> list[str]:
        return [path.name for path in (slot / "trash").rglob("*") if path.is_file()]

    await world.until(lambda: "trash.left" in agent.said)
    assert left() == ["stays"]
    assert [path.name for path in precious.iterdir()] == ["file"]
    (stays,) = (slot / "trash").rglob("stays")
    subprocess.run(["chattr", "-i", stays], check=True)


@scenario("B21", quick=False)
async def test_b21_commands_that_burn_the_whole_machine_cost_no_lease(
    world: World, profile: FaultProfile
) -> None:
    processes, seconds = profile.of(quick=(8, 6.0), full=(100, 60.0))
    await world.start(slots=2)
    (agent,) = world.agents
    burn = " ".join("while :; do :; done &" for _ in range(processes // 2))
    job = await world.submit(world.task(f"{burn} wait", instances=2))
    await world.until_started(job, count=2)
    await world.lasts(seconds)
    (node,) = await world.client.nodes()
    assert node.state is NodeState.READY
    assert [len(one.attempts) for one in await world.instances(job)] == [1, 1]
    await world.stop(job)
    assert (await world.wait(job)).state is JobState.STOPPED
    assert "session.lost" not in agent.said
    assert "heartbeat.failed" not in agent.said


@scenario("B22", quick=False)
@pytest.mark.parametrize("how", ["timeout", "stop"])
async def test_b22_a_command_stuck_in_the_kernel_withholds_its_slot_until_it_is_free(
    world: World, how: str
) -> None:
    lacks = lacking()
    if lacks:
        raise NotRun(lacks)
    root = world.directory / "root"
    root.mkdir()
    disk = world.stack.enter_context(fault_mount(world.directory / "disk", root))
    await world.start(agents=2, slots=1)
    first = f"dd if=/dev/zero of={disk.path}/file bs=1k count=1 conv=fsync 2> /dev/null"
    limit = timedelta(seconds=3) if how == "timeout" else None
    disk.hang("write")
    job = await world.submit(world.task(f"[ $WINDLASS_ATTEMPT -gt 1 ] || {first}", timeout=limit))
    await world.until_running(job)
    (attempt,) = await world.attempts(job)
    (agent,) = [one for one in world.agents if one.name == attempt.node_name]
    if how == "stop":
        await world.lasts(1.0)  # until it hangs
        await world.stop(job)
    state = (await world.wait(job, within_s=90.0)).state
    assert state is (JobState.STOPPED if how == "stop" else JobState.SUCCEEDED)
    stuck, *others = await world.attempts(job)
    assert (stuck.state, stuck.failure) == (AttemptState.LOST, FailureKind.INFRA_KILL_STUCK)
    assert [(one.state, one.fence > stuck.fence, one.node_name != stuck.node_name) for one in others] == (
        [] if how == "stop" else [(AttemptState.SUCCEEDED, True, True)]
    )
    more = await world.submit(world.task("true", instances=4))
    assert (await world.wait(more)).state is JobState.SUCCEEDED
    used = {a.node_name for one in await world.instances(more) for a in one.attempts}
    assert used == {one.name for one in world.agents} - {stuck.node_name}
    disk.clear()
    await world.until(lambda: "slot.usable_again" in agent.said)
    await _both_nodes_work(world)


async def _both_nodes_work(world: World) -> None:
    gate = world.gate()
    job = await world.submit(world.task(gate.wait, instances=2))
    await world.until_started(job, count=2)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    nodes = {a.node_name for one in await world.instances(job) for a in one.attempts}
    assert len(nodes) == 2
