"""What a keeper does about that which outlives a command's processes, such as its container."""

import os
import signal
from pathlib import Path

from tests.support.keeper_slots import a_slot


def undo(path: Path) -> tuple[str, ...]:
    """Leaves a trace, and whose child it was."""
    return ("/bin/sh", "-c", f"exec >{path}; echo undone; echo $PPID")


async def test_it_is_undone_before_the_end_is_told_when_the_command_was_killed(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        line = "trap '' TERM; while :; do sleep 1; done"
        ref = slot.hand_over("/bin/sh", "-c", line, kill_grace_s=0.1, undo=undo(tmp_path / "undone"))
        await slot.start_of(ref)
        slot.slot.stop(ref)
        record = await slot.end_of(ref)
        assert record.stopped
        assert (tmp_path / "undone").read_text() == f"undone\n{slot.keeper_pid()}\n"


async def test_a_command_that_a_stranger_killed_is_undone_too(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sleep", "1000", undo=undo(tmp_path / "undone"))
        os.kill((await slot.start_of(ref)).pid, signal.SIGKILL)
        await slot.end_of(ref)
        assert (tmp_path / "undone").exists()


async def test_a_command_that_came_to_its_own_end_has_seen_to_it_itself(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        record = await slot.run_shell("exit 3", undo=undo(tmp_path / "undone"))
        assert (record.code, (tmp_path / "undone").exists()) == (3, False)


async def test_commands_after_it_are_as_ever(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        killed = slot.hand_over("/bin/sleep", "1000", undo=undo(tmp_path / "undone"))
        await slot.start_of(killed)
        slot.slot.stop(killed, grace_s=0)
        await slot.end_of(killed)
        assert (await slot.run_shell("(exit 0) & wait; exit 0")).code == 0


async def test_an_undoing_that_cannot_be_started_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sleep", "1000", undo=("/no/such/program",))
        await slot.start_of(ref)
        slot.slot.stop(ref, grace_s=0)
        assert (await slot.end_of(ref)).stopped
