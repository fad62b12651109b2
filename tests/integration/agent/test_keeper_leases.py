"""What outlives the node's lease is ended by its keeper, whether there is an agent or not."""

import os
import signal
from pathlib import Path

from tests.support.keeper_slots import a_slot, eventually, is_running
from windlass_agent.core.run_plan import Lease
from windlass_agent.node.boot_clock import boot_seconds
from windlass_agent.runner.live_attempt import never_began
from windlass_proto.model.failures import FailureKind


def a_lease(for_s: float, *, grace_s: float = 30.0) -> Lease:
    return Lease(until_s=boot_seconds() + for_s, kill_grace_s=grace_s)


async def test_a_command_is_ended_when_the_lease_has_been_over_for_its_time(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", outlive_s=0.3)
        await slot.start_of(ref)
        slot.slot.renew_lease(a_lease(0.3))
        record = await slot.end_of(ref)
        assert slot.others_in_group() == []
    assert (record.disconnected, record.stopped, record.signal) == (True, False, signal.SIGTERM)
    assert record.kind is FailureKind.INFRA_NODE_LOST
    assert record.reason == "the coordinator was not heard for longer than run_for; signal SIGTERM"
    assert record.ran_for_us >= 600_000


async def test_a_command_that_may_outlive_the_lease_for_ever_goes_on(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", "sleep 0.8; exit 3")
        await slot.start_of(ref)
        slot.slot.renew_lease(a_lease(0.3))
        assert (await slot.end_of(ref)).code == 3


async def test_a_renewed_lease_counts_for_what_runs_already(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", "sleep 1; exit 3", outlive_s=0.0)
        await slot.start_of(ref)
        slot.slot.renew_lease(a_lease(0.5))
        slot.slot.renew_lease(a_lease(60.0))
        assert (await slot.end_of(ref)).code == 3


async def test_the_keeper_counts_on_when_the_agent_is_gone(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", outlive_s=0.0)
        start = await slot.start_of(ref)
        slot.slot.renew_lease(a_lease(0.6))
        await slot.slot.close(end_keeper=False)
        await eventually(lambda: not is_running(start.pid))
        found = await slot.restart_agent()
        record = found.ended[0] if found.ended else await slot.end_of(ref)
    assert (record.ref, record.disconnected) == (ref, True)


async def test_a_restarted_agent_does_not_prolong_what_it_has_not_renewed(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000", outlive_s=0.0)
        await slot.start_of(ref)
        slot.slot.renew_lease(a_lease(0.8))
        found = await slot.restart_agent()
        record = found.ended[0] if found.ended else await slot.end_of(ref)
    assert (record.ref, record.disconnected) == (ref, True)


async def test_after_the_lease_nothing_plain_is_started(tmp_path: Path) -> None:
    """The coordinator may have given to another node what it has not heard of as begun."""
    async with a_slot(tmp_path) as slot:
        slot.slot.renew_lease(a_lease(0.0))
        record = await slot.run("touch", str(tmp_path / "started"), outlive_s=1000.0)
        slot.slot.renew_lease(a_lease(60.0))
        assert (await slot.run("true", outlive_s=0.0)).code == 0
    assert never_began(record)
    assert (record.disconnected, record.started) == (True, False)
    assert not (tmp_path / "started").exists()


async def test_what_was_prepared_may_start_as_long_as_it_might_run(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        slot.slot.renew_lease(a_lease(0.0))
        prepared = await slot.run("true", outlive_s=1000.0, work_dir=str(tmp_path))
        late = await slot.run("true", outlive_s=0.0, work_dir=str(tmp_path))
    assert (prepared.code, never_began(late)) == (0, True)


async def test_the_coordinators_grace_bounds_that_of_what_outlived_the_lease(tmp_path: Path) -> None:
    line = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", line, outlive_s=0.0, kill_grace_s=1000.0)
        await eventually(lambda: slot.output(ref) == b"ready\n")
        slot.slot.renew_lease(a_lease(0.2, grace_s=0.3))
        record = await slot.end_of(ref)
    assert (record.signal, record.disconnected) == (signal.SIGKILL, True)


async def test_a_stop_may_shorten_the_grace(tmp_path: Path) -> None:
    line = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", line, kill_grace_s=1000.0)
        await eventually(lambda: slot.output(ref) == b"ready\n")
        slot.slot.stop(ref, grace_s=0.2)
        record = await slot.end_of(ref)
    assert (record.signal, record.stopped) == (signal.SIGKILL, True)


async def test_a_keeper_whose_slot_is_removed_ends_its_command_and_itself(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("sleep", "1000")
        start, keeper = await slot.start_of(ref), slot.keeper_pid()
        await slot.slot.close(end_keeper=False)
        moved = (tmp_path / "slot").rename(tmp_path / "gone")
        for path in sorted(moved.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        moved.rmdir()
        await eventually(lambda: not is_running(start.pid))
        await eventually(lambda: not is_running(keeper))
        os.waitpid(keeper, 0)
