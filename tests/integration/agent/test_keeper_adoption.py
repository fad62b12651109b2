"""The agent's end and return, the keeper's end: what was written is found, what cannot be known is lost."""

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.keeper_slots import SlotUnderTest, a_slot, eventually, is_running
from windlass_agent.runner.cgroups import Containment
from windlass_agent.runner.keeper_link import KeeperPhase
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.spool.slot_dir import SlotDir
from windlass_proto.errors import Unavailable

GROUPLESS = Containment(unified=None, memory=None, pids=None, lacks="as on a machine without rights")


async def test_a_restarted_agent_finds_its_command_running_and_hears_its_end(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        running = slot.hand_over(
            "/bin/sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo done; exit 6"
        )
        waiting = slot.hand_over("true")
        start = await slot.start_of(running)
        keeper = slot.keeper_pid()
        found = await slot.restart_agent()
        assert found == SlotInventory(running=running, queued=(waiting,), alive=True)
        assert slot.keeper_pid() == keeper
        assert is_running(start.pid)
        (tmp_path / "go").touch()
        assert (await slot.end_of(running)).code == 6
        assert (await slot.end_of(waiting)).code == 0
        assert slot.output(running) == b"done\n"


async def test_what_ended_while_the_agent_was_away_is_found_in_the_journal(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        refs = [
            slot.hand_over("/bin/sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit {i}")
            for i in range(5)
        ]
        await slot.start_of(refs[0])
        await slot.slot.close(end_keeper=False)
        (tmp_path / "go").touch()
        journal = tmp_path / "slot" / "journal.000001"
        await eventually(lambda: journal.read_bytes().count(b'"is":"exit"') == 5)
        found = await slot.restart_agent()
        again = await slot.restart_agent()
        assert found == again
        assert found.alive
        assert {record.ref: record.code for record in found.ended} == {ref: i for i, ref in enumerate(refs)}
        assert (found.running, found.queued, found.lost) == (None, (), ())


async def test_a_timeout_is_kept_while_the_agent_is_away(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", timeout_s=0.5, kill_grace_s=0.1)
        start = await slot.start_of(ref)
        await slot.slot.close(end_keeper=False)
        await eventually(lambda: not is_running(start.pid))
        found = await slot.restart_agent()
        if found.ended:
            assert found.ended[0].reason.startswith("ran longer than 0.5 s")
        else:
            assert (await slot.end_of(ref)).reason.startswith("ran longer than 0.5 s")


@pytest.mark.parametrize("with_groups", [True, False])
async def test_a_killed_keepers_attempts_are_lost_and_their_processes_ended(
    tmp_path: Path, with_groups: bool
) -> None:
    async with a_slot(tmp_path, containment=None if with_groups else GROUPLESS) as slot:
        ended = slot.hand_over("true")
        running = slot.hand_over("/bin/sh", "-c", "sleep 1000 & echo $!; wait")
        waiting = slot.hand_over("true")
        start = await slot.start_of(running)
        await eventually(lambda: slot.output(running) != b"")
        os.kill(slot.keeper_pid(), signal.SIGKILL)
        await slot.until(lambda: bool(slot.lost), "on_keeper_lost")
        assert slot.lost == [running, waiting]
        assert not is_running(start.pid)
        assert not is_running(int(slot.output(running)))
        assert (await slot.end_of(ended)).code == 0
        assert slot.slot.idle
        assert (await slot.run("true")).code == 0


async def test_a_keeper_that_died_before_the_agent_came_back_is_told_by_its_journal(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ended = slot.hand_over("true")
        running = slot.hand_over("sleep", "1000")
        start = await slot.start_of(running)
        keeper = slot.keeper_pid()
        await slot.slot.close(end_keeper=False)
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        found = await slot.restart_agent()
        assert [record.ref for record in found.ended] == [ended]
        assert (found.lost, found.running, found.alive, found.rebooted) == ((running,), None, False, False)
        assert not is_running(start.pid)
        assert (await slot.run("true")).code == 0


@pytest.mark.parametrize("with_groups", [True, False])
async def test_a_copy_of_a_slot_leaves_the_originals_command_alone(tmp_path: Path, with_groups: bool) -> None:
    async with a_slot(tmp_path / "original", containment=None if with_groups else GROUPLESS) as slot:
        ended, running = slot.hand_over("true"), slot.hand_over("sleep", "1000")
        start = await slot.start_of(running)
        subprocess.run(["cp", "-a", tmp_path / "original", tmp_path / "copy"], check=True)
        async with a_slot(tmp_path / "other", containment=GROUPLESS) as other:
            copy = SlotUnderTest(tmp_path / "copy", other.containment, other.settings)
            found = await copy.slot.adopt()
            await copy.slot.close(end_keeper=True)
        assert ([record.ref for record in found.ended], found.lost, found.alive) == (
            [ended],
            (running,),
            False,
        )
        assert is_running(start.pid)


async def test_a_slot_that_was_renamed_is_no_copy(tmp_path: Path) -> None:
    async with a_slot(tmp_path / "before", containment=GROUPLESS) as slot:
        running = slot.hand_over("sleep", "1000")
        start, keeper = await slot.start_of(running), slot.keeper_pid()
        await slot.slot.close(end_keeper=False)
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        slot.directory = slot.directory.rename(tmp_path / "after")
        assert (await slot.restart_agent()).lost == (running,)
        assert not is_running(start.pid)


@pytest.mark.parametrize(
    ("failpoint", "is_started"),
    [
        ("keeper.intent.after_write", False),
        ("keeper.start.before_exec", False),
        ("keeper.start.after_write", True),
    ],
)
async def test_a_keeper_that_dies_at_a_start_loses_the_attempt(
    tmp_path: Path, failpoint: str, is_started: bool
) -> None:
    async with a_slot(tmp_path, crash_at=failpoint) as slot:
        ref = slot.hand_over("touch", str(tmp_path / "started"))
        await slot.until(lambda: bool(slot.lost), "on_keeper_lost")
        assert slot.lost == [ref]
        assert slot.others_in_group() == []
    assert is_started or not (tmp_path / "started").exists()


async def test_a_keeper_that_dies_after_writing_an_end_has_told_it(tmp_path: Path) -> None:
    async with a_slot(tmp_path, crash_at="keeper.exit.after_write") as slot:
        ref = slot.hand_over("/bin/sh", "-c", "exit 8")
        assert (await slot.end_of(ref)).code == 8
        assert slot.lost == []


async def test_a_keeper_that_cannot_start_gives_its_plans_back(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        (tmp_path / "slot" / "work").write_text("a file where the directory should be")
        ref = slot.hand_over("true")
        await slot.until(lambda: bool(slot.lost), "on_keeper_lost")
        assert slot.lost == [ref]
        with pytest.raises(Unavailable, match=r"slot 0 has no keeper .*NotADirectoryError"):
            await slot.slot.start()
        (tmp_path / "slot" / "work").unlink()
        assert (await slot.run("true")).code == 0


async def test_a_keeper_of_another_build_is_replaced_when_it_is_idle(tmp_path: Path) -> None:
    async with a_slot(tmp_path, build="1") as slot:
        running = slot.hand_over("/bin/sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done")
        await slot.start_of(running)
        old = slot.keeper_pid()
        slot.settings = type(slot.settings)(build="2")
        found = await slot.restart_agent()
        assert found.running == running
        waiting = slot.hand_over("true")
        assert slot.slot.phase is KeeperPhase.RETIRING
        (tmp_path / "go").touch()
        await slot.end_of(running)
        await slot.end_of(waiting)
        assert slot.keeper_pid() != old
        assert slot.lost == []


async def test_a_torn_journal_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        first, second = await slot.run("true"), await slot.run_shell("exit 2")
        keeper = slot.keeper_pid()
        await slot.slot.close(end_keeper=False)
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        journal = tmp_path / "slot" / "journal.000001"
        written = journal.read_bytes().partition(b"\0")[0]
        journal.write_bytes(written[:-20] + b"\0" * 1000)
        found = await slot.restart_agent()
        assert [record.ref for record in found.ended] == [first.ref]
        assert found.lost == (second.ref,)


async def test_journal_segments_go_when_their_attempts_are_forgotten(tmp_path: Path) -> None:
    async with a_slot(tmp_path, journal_bytes=16384) as slot:
        refs = [slot.hand_over("true") for _ in range(150)]
        await slot.end_of(refs[-1])
        before = sorted((tmp_path / "slot").glob("journal.*"))
        for ref in refs[:-1]:
            slot.slot.forget(ref)
        after = sorted((tmp_path / "slot").glob("journal.*"))
        assert len(before) >= 3
        assert after == before[-1:]
        assert [path.stat().st_size for path in after] == [16384]
        found = await slot.restart_agent()
        assert refs[-1] in {record.ref for record in found.ended}


async def test_only_who_knows_the_nonce_is_heard(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        await slot.slot.start()
        for hello in (b'{"is":"hello","nonce":"guess"}\n', b'{"is":"shutdown","kill":true}\n', b"nonsense\n"):
            stranger = socket.socket(socket.AF_UNIX)
            stranger.settimeout(10)
            directory = os.open(tmp_path / "slot", os.O_PATH)
            stranger.connect(f"/proc/self/fd/{directory}/keeper.sock")
            os.close(directory)
            stranger.sendall(hello)
            assert await asyncio.to_thread(stranger.recv, 100) == b""
            stranger.close()
        assert (await slot.run("true")).code == 0
        for name in ("keeper.sock", "keeper.nonce", "keeper.lock"):
            assert (tmp_path / "slot" / name).stat().st_mode & 0o777 == 0o600


async def test_a_slots_path_may_be_longer_than_a_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    async with a_slot(deep) as slot:
        await slot.run("true")
        assert (await slot.restart_agent()).alive
        assert (await slot.run("true")).code == 0


async def test_an_idle_keeper_without_an_agent_ends_itself(tmp_path: Path) -> None:
    async with a_slot(tmp_path, idle_exit_s=0.3) as slot:
        await slot.run("true")
        await slot.slot.close(end_keeper=False)
        await eventually(lambda: not SlotDir(tmp_path / "slot").keeper_lives())
        assert not (await slot.restart_agent()).alive


async def test_a_keeper_that_hangs_is_ended_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass_agent.runner.keeper_link.HELLO_S", 0.5)
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000")
        start = await slot.start_of(ref)
        os.kill(slot.keeper_pid(), signal.SIGSTOP)
        found = await slot.restart_agent()
        assert (found.lost, found.alive) == ((ref,), False)
        assert not is_running(start.pid)


async def test_two_keepers_never_share_a_slot(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        running = slot.hand_over("sleep", "1000")
        await slot.start_of(running)
        keeper = slot.keeper_pid()
        other = SlotUnderTest(tmp_path, slot.containment, slot.settings)
        await other.slot.start()
        assert other.keeper_pid() == keeper
        other.slot.stop(running)
        await other.end_of(running)
        await other.slot.close(end_keeper=False)
        assert (await slot.restart_agent()).ended[0].ref == running
