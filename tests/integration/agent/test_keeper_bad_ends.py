"""Keepers that hang or cannot start, processes that cannot be ended, and what nobody owns any more."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.keeper_slots import a_slot, eventually, is_running, state_of
from windlass_agent.runner.cgroups import (
    CgroupTrees,
    Containment,
    find_containment,
    make_containment,
    read_trees,
)
from windlass_agent.runner.keeper_link import KeeperPhase
from windlass_agent.runner.orphans import end_orphans
from windlass_proto.model.failures import FailureKind

FREEZER = Path("/sys/fs/cgroup/freezer")


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A v1 freezer holds a process so that not even SIGKILL ends it, as a hanging disk does."""
    if not (FREEZER / "cgroup.procs").exists() or not os.access(FREEZER, os.W_OK):
        pytest.skip("not run: no v1 freezer to be written")
    group = FREEZER / f"windlass-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "freezer.state").write_text("FROZEN")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        deadline = 500
        while (group / "cgroup.procs").read_text() and deadline:
            deadline -= 1
            subprocess.run(["sleep", "0.01"], check=True)
        group.rmdir()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper says after 5 s that it cannot empty its group; this is the agent's own patience."""
    monkeypatch.setattr("windlass_agent.runner.keeper_client.KILL_STUCK_S", 5.0)
    monkeypatch.setattr("windlass_agent.runner.keeper_client.EMPTY_S", 0.5)
    monkeypatch.setattr("windlass_agent.runner.keeper_client.STUCK_LOOK_S", 0.1)


@pytest.mark.usefixtures("short_patience")
async def test_a_slot_is_withheld_until_its_processes_can_be_ended(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", kill_grace_s=0.1)
        start = await slot.start_of(ref)
        with frozen(start.pid):
            slot.slot.stop(ref)
            await slot.until(lambda: bool(slot.lost), "on_keeper_lost")
            assert (slot.lost, slot.lost_as) == ([ref], [FailureKind.INFRA_KILL_STUCK])
            assert slot.slot.is_stuck
            assert is_running(start.pid)
            after = slot.hand_over("true")
            assert slot.slot.phase is KeeperPhase.BURIED
        assert (await slot.end_of(after)).code == 0
        assert not slot.slot.is_stuck
        assert not is_running(start.pid)


@pytest.mark.usefixtures("short_patience")
async def test_an_agent_that_comes_back_tells_of_what_cannot_be_ended_when_it_knows(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", kill_grace_s=0.1)
        start, keeper = await slot.start_of(ref), slot.keeper_pid()
        with frozen(start.pid):
            await slot.slot.close(end_keeper=False)
            os.kill(keeper, signal.SIGKILL)
            os.waitpid(keeper, 0)
            found = await slot.restart_agent()
            assert (found.running, found.lost, found.alive) == (ref, (), False)
            await slot.until(lambda: bool(slot.lost), "on_keeper_lost")
            assert (slot.lost, slot.lost_as) == ([ref], [FailureKind.INFRA_KILL_STUCK])
        await eventually(lambda: not slot.slot.is_stuck)
        assert (await slot.run("true")).code == 0


async def test_a_process_that_vanishes_late_leaves_an_exact_result(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", kill_grace_s=0.1)
        start = await slot.start_of(ref)
        keeper = slot.keeper_pid()
        with frozen(start.pid):
            slot.slot.stop(ref)
            await eventually(lambda: slot.slot._stuck_since > 0)
        record = await slot.end_of(ref)
        assert record.stopped
        assert record.signal in (signal.SIGTERM, signal.SIGKILL)
        assert (await slot.run("true")).code == 0
        assert slot.keeper_pid() == keeper


async def test_a_keeper_that_hangs_when_it_must_act_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass_agent.runner.keeper_client.HUNG_S", 0.3)
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", kill_grace_s=0.1)
        start = await slot.start_of(ref)
        os.kill(slot.keeper_pid(), signal.SIGSTOP)
        slot.slot.stop(ref)
        await slot.until(lambda: bool(slot.lost), "on_keeper_lost")
        assert slot.lost_as == [FailureKind.INFRA_KEEPER_LOST]
        assert not is_running(start.pid)
        assert (await slot.run("true")).code == 0


async def test_a_keeper_that_works_is_left_alone_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass_agent.runner.keeper_client.HUNG_S", 0.3)
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", kill_grace_s=0.1)
        await slot.start_of(ref)
        keeper = slot.keeper_pid()
        slot.slot.stop(ref)
        await slot.end_of(ref)
        await slot.run("sleep", "0.6")
        assert slot.keeper_pid() == keeper


async def test_a_group_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        groups = slot.containment.slot_groups(0).paths()
        if not groups:
            pytest.skip("not run: no cgroups here")
        for path in groups:
            path.rmdir()
            path.parent.rmdir()
        assert (await slot.run("true")).code == 0
        assert all(path.exists() for path in groups)


async def test_a_keeper_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        (tmp_path / "slot" / "keeper.log").mkdir()
        ref = slot.hand_over("true")
        await slot.until(lambda: bool(slot.lost), "on_keeper_lost")
        assert (slot.lost, slot.lost_as) == ([ref], [FailureKind.INFRA_PREPARE])
        assert slot.slot.idle
        (tmp_path / "slot" / "keeper.log").rmdir()
        assert (await slot.run("true")).code == 0


async def test_a_fork_bomb_is_held_by_the_limit_of_processes(tmp_path: Path) -> None:
    if find_containment(f"test-{os.getpid()}").slot_groups(0).pids is None:
        pytest.skip("not run: no pids controller here")
    bomb = "while :; do (exec sleep 1000) & done"
    async with a_slot(tmp_path, pids_max=50) as slot:
        ref = slot.hand_over("/bin/bash", "-c", bomb, kill_grace_s=0.2)
        await eventually(lambda: len(slot.others_in_group()) >= 45)
        assert len(slot.others_in_group()) <= 50
        slot.slot.stop(ref)
        await slot.end_of(ref)
        assert slot.others_in_group() == []
        assert (await slot.run_shell("true | true")).code == 0


async def test_commands_have_the_usual_priority_whatever_the_agent_has(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not run: needs root, to raise a priority")
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    try:
        async with a_slot(tmp_path) as slot:
            record = await slot.run_shell("exit $(($(awk '{print $19}' /proc/self/stat) + 100))")
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    assert record.code == 100


async def test_v1_groups_alone_end_a_tree_whose_keeper_is_gone(tmp_path: Path) -> None:
    trees = read_trees(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    if "pids" not in trees.v1:
        pytest.skip("not run: no v1 pids controller here")
    containment = make_containment(CgroupTrees(unified=None, v1=trees.v1), f"test-v1-{os.getpid()}")
    line = "trap '' TERM; setsid sleep 1000 & (setsid sleep 1000 &) ; sleep 1000 & echo ready; wait"
    async with a_slot(tmp_path, containment=containment) as slot:
        stopped = slot.hand_over("/bin/sh", "-c", line, kill_grace_s=0.1)
        await eventually(lambda: slot.output(stopped) == b"ready\n")
        slot.slot.stop(stopped)
        await slot.end_of(stopped)
        assert slot.others_in_group() == []
        lost = slot.hand_over("/bin/sh", "-c", line)
        await eventually(lambda: slot.output(lost) == b"ready\n")
        tree = slot.others_in_group()
        os.kill(slot.keeper_pid(), signal.SIGKILL)
        await slot.until(lambda: slot.lost == [lost], "on_keeper_lost")
        assert not [pid for pid in tree if is_running(pid)]
        assert (await slot.run_shell("true | true")).code == 0


async def test_what_runs_for_a_removed_state_directory_is_ended(tmp_path: Path) -> None:
    root = tmp_path / "state"
    containment = find_containment(f"test-{os.getpid()}-1-2")
    if not containment.slot_groups(0).paths():
        pytest.skip("not run: no cgroups here")
    lives_on = await _a_command_under(tmp_path / "other", f"test-{os.getpid()}-5-6")
    removed = await _a_command_under(root, f"test-{os.getpid()}-3-4")
    shutil.rmtree(root)
    before = await _a_command_under(tmp_path / "third", f"test-{os.getpid()}-old-1-2")
    try:
        assert end_orphans(containment, root, "1-2") >= 4  # two keepers, two commands
        assert [is_running(pid) for pid in (removed, before, lives_on)] == [False, False, True]
    finally:
        kept = find_containment(f"test-{os.getpid()}-5-6")
        kept.kill_group(0)
        await eventually(lambda: kept.is_empty(0))
        for one in (kept, containment):
            one.remove(0)
    assert not [one.owner for one in containment.siblings() if f"test-{os.getpid()}-" in one.owner]


async def _a_command_under(root: Path, owner: str) -> int:
    """Its pid; it was started by an agent that is gone."""
    code = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from tests.support.keeper_slots import SlotUnderTest, KeeperSettings, find_containment\n"
        "async def main():\n"
        "    containment = find_containment(sys.argv[2])\n"
        "    slot = SlotUnderTest(Path(sys.argv[1]), containment, KeeperSettings(), where='slots/0')\n"
        "    await slot.slot.adopt()\n"
        "    ref = slot.hand_over('sleep', '1000')\n"
        "    print((await slot.start_of(ref)).pid, flush=True)\n"
        "    await slot.slot.close(end_keeper=False)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, str(root), owner), stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    pid = int(out.split()[-1])
    assert state_of(pid)
    return pid


def test_a_machine_without_groups_has_no_orphans_to_find(tmp_path: Path) -> None:
    weak = Containment(unified=None, memory=None, pids=None, lacks="as without rights")
    assert end_orphans(weak, tmp_path, "1-2") == 0
