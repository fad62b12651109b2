"""Ending commands: nothing of one is left when its end is told."""

import asyncio
import signal
import time
from pathlib import Path

from tests.support.keeper_slots import SlotUnderTest, a_slot, eventually, is_running, state_of
from windlass_agent.runner.cgroups import Containment
from windlass_proto.model.failures import FailureKind

STUBBORN_TREE = """
trap '' TERM
sh -c 'trap "" TERM; while :; do sleep 1; done' &
setsid sh -c 'trap "" TERM; while :; do sleep 1; done' &
(setsid sh -c 'sleep 1000 & sleep 1000' > /dev/null 2>&1 &)
setsid python3 -c 'import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
' > /dev/null 2>&1
sh -c 'kill -STOP $$' &
echo ready
while :; do sleep 1; done
"""
GROUPLESS = Containment(unified=None, memory=None, pids=None, lacks="as on a machine without rights")


async def wrote(slot: SlotUnderTest, ref: object, text: bytes) -> None:
    await eventually(lambda: text in slot.output(ref))  # type: ignore[arg-type]


async def test_a_timeout_ends_the_whole_tree_after_its_grace(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        record = await slot.run_shell(STUBBORN_TREE, timeout_s=1.0, kill_grace_s=0.5)
        assert slot.others_in_group() == []
    assert (record.code, record.signal, record.kind) == (None, signal.SIGKILL, FailureKind.TIMEOUT)
    assert record.reason == "ran longer than 1 s; signal SIGKILL"
    assert 1_500_000 <= record.ran_for_us < 6_000_000
    assert not record.stopped


async def test_a_stop_ends_the_whole_tree(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", STUBBORN_TREE, kill_grace_s=0.2)
        await wrote(slot, ref, b"ready")
        began = set(slot.others_in_group())
        slot.slot.stop(ref)
        record = await slot.end_of(ref)
        assert len(began) >= 7
        assert slot.others_in_group() == []
        assert not [pid for pid in began if is_running(pid)]
    assert record.stopped
    assert record.signal == signal.SIGKILL


async def test_without_cgroups_the_tree_is_found_by_its_descent(tmp_path: Path) -> None:
    async with a_slot(tmp_path, containment=GROUPLESS) as slot:
        ref = slot.hand_over(
            "/bin/sh", "-c", STUBBORN_TREE.replace("sleep 1000", "sleep 98765"), kill_grace_s=0.2
        )
        await wrote(slot, ref, b"ready")
        assert named("98765")
        slot.slot.stop(ref)
        await slot.end_of(ref)
        assert not named("98765")


def named(word: str) -> list[str]:
    """Command lines in this machine that hold a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(path.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [pid for pid in found if is_running(int(pid))]


async def test_a_command_that_obeys_keeps_its_grace_and_its_output(tmp_path: Path) -> None:
    line = "trap 'sleep 0.3; echo saved; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", line)
        await wrote(slot, ref, b"ready")
        slot.slot.stop(ref)
        record = await slot.end_of(ref)
        assert slot.output(ref) == b"ready\nsaved\n"
    assert (record.code, record.stopped, record.kind) == (4, True, FailureKind.USER_EXIT)


async def test_what_a_shell_started_has_its_grace_though_the_shell_dies_at_once(tmp_path: Path) -> None:
    line = "sh -c \"trap 'sleep 0.3; echo saved; exit' TERM; echo ready; while :; do sleep 0.05; done\"; true"
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", line)
        await wrote(slot, ref, b"ready")
        slot.slot.stop(ref)
        record = await slot.end_of(ref)
        assert slot.output(ref) == b"ready\nsaved\n"
    assert record.signal == signal.SIGTERM


async def test_a_stopped_process_is_continued_so_that_it_can_end(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", "trap 'exit 5' TERM; echo ready; kill -STOP $$; sleep 1000")
        pid = (await slot.start_of(ref)).pid
        await eventually(lambda: state_of(pid) == "T")
        slot.slot.stop(ref)
        record = await slot.end_of(ref)
    assert record.code == 5


async def test_daemons_that_outlive_their_command_are_ended_and_counted(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        record = await slot.run_shell("for i in 1 2 3; do setsid sleep 1000 > /dev/null 2>&1 & done; exit 0")
        assert slot.others_in_group() == []
    assert (record.code, record.kind, record.leftover_processes) == (0, None, 3)


async def test_output_of_a_daemon_is_taken_for_the_time_of_the_drain(tmp_path: Path) -> None:
    async with a_slot(tmp_path, drain_s=1.0) as slot:
        late = slot.hand_over("/bin/sh", "-c", "(sleep 0.2; echo late) & exit 0")
        await slot.end_of(late)
        began = time.monotonic()
        held = await slot.run_shell("sleep 1000 & exit 0")
        took = time.monotonic() - began
        assert slot.output(late) == b"late\n"
    assert 1.0 <= took < 4.0
    assert held.ran_for_us < 900_000
    assert held.leftover_processes == 1


async def test_a_fork_bomb_is_ended(tmp_path: Path) -> None:
    forks = "for _ in range(7):\n    os.fork() or os.setsid()\n    time.sleep(0.02)"
    bomb = f"import os, time\n{forks}\ntime.sleep(1000)"
    async with a_slot(tmp_path) as slot:
        record = await slot.run("python3", "-c", bomb, timeout_s=0.6, kill_grace_s=0.0)
        assert slot.others_in_group() == []
        assert (await slot.run("true")).code == 0
    assert record.kind is FailureKind.TIMEOUT


async def test_a_plan_that_waits_can_be_stopped_before_it_starts(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        running = slot.hand_over("sleep", "1000")
        waiting = slot.hand_over("touch", str(tmp_path / "started"))
        await slot.start_of(running)
        slot.slot.stop(waiting)
        dropped = await slot.end_of(waiting)
        assert slot.slot.depth == 1
        slot.slot.stop(running)
        await slot.end_of(running)
        assert slot.slot.idle
    assert (dropped.started, dropped.stopped, dropped.code, dropped.signal) == (False, True, None, None)
    assert not (tmp_path / "started").exists()


async def test_a_stop_that_comes_with_the_plan_is_obeyed(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000")
        slot.slot.stop(ref)
        record = await slot.end_of(ref)
    assert record.stopped


async def test_commands_run_one_after_another_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with a_slot(tmp_path / "state") as slot:
        refs = [
            slot.hand_over("/bin/sh", "-c", f"echo {i} >> {log}; sleep 0.01; echo {i} >> {log}")
            for i in range(20)
        ]
        await slot.end_of(refs[-1])
        heard = [record.ref for record in slot.records]
    assert log.read_text().split() == [str(i) for i in range(20) for _ in range(2)]
    assert heard == [ref for ref in refs for _ in range(2)]


async def test_ending_the_keeper_ends_its_command_and_tells_so(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        running, waiting = slot.hand_over("sleep", "1000"), slot.hand_over("sleep", "1000")
        start = await slot.start_of(running)
        await slot.slot.close(end_keeper=True)
        first, second = await slot.end_of(running), await slot.end_of(waiting)
        assert not is_running(start.pid)
    assert (first.stopped, first.started, second.stopped, second.started) == (True, True, True, False)


async def test_orphans_of_a_long_command_do_not_pile_up_as_zombies(tmp_path: Path) -> None:
    line = "for i in 1 2 3 4 5; do (setsid true &); done; echo ready; exec sleep 1000"
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", line)
        await wrote(slot, ref, b"ready")
        children = Path(f"/proc/{slot.keeper_pid()}/task/{slot.keeper_pid()}/children")
        await asyncio.sleep(0)
        await eventually(lambda: len(children.read_text().split()) == 1)
        slot.slot.stop(ref)
        await slot.end_of(ref)
