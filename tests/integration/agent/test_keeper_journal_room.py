"""A keeper's journal: room is there before a command starts, and a kill at any of its arrows is told."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.keeper_slots import a_slot, eventually
from tests.support.small_disk import SmallDisk, lacking, small_disk
from windlass_agent.core.run_plan import ExitRecord
from windlass_agent.runner.live_attempt import never_began
from windlass_proto.model.failures import FailureKind

ROTATES = 16384


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if lacking():
        pytest.skip(f"not run: {lacking()}")
    with small_disk(tmp_path / "disk", size_bytes=2 << 20) as made:
        yield made


async def test_a_full_disk_does_not_swallow_the_result_of_what_runs(disk: SmallDisk) -> None:
    async with a_slot(disk.path, journal_bytes=ROTATES) as slot:
        go = disk.path.parent / "go"
        ref = slot.hand_over("/bin/sh", "-c", f"while [ ! -e {go} ]; do sleep 0.01; done; exit 6")
        await slot.start_of(ref)
        disk.fill()
        await slot.slot.close(end_keeper=False)
        go.touch()
        journal = disk.path / "slot" / "journal.000001"
        await eventually(lambda: b'"exit"' in journal.read_bytes())
        found = await slot.restart_agent()
        assert [(record.ref, record.code) for record in found.ended] == [(ref, 6)]
        disk.empty()


async def test_what_cannot_be_written_down_does_not_start_and_the_keeper_lives(disk: SmallDisk) -> None:
    async with a_slot(disk.path, journal_bytes=ROTATES) as slot:
        keeper = 0
        refused = None
        for _ in range(200):
            record = await slot.run("true")
            keeper = keeper or slot.keeper_pid()
            disk.fill()
            if record.kind is not None:
                refused = record
                break
        assert refused is not None
        assert refused.kind is FailureKind.INFRA_PREPARE
        assert refused.reason == "the keeper's journal: No space left on device"
        disk.empty()
        assert (await slot.run("true")).code == 0
        assert slot.keeper_pid() == keeper


async def test_a_plan_is_stopped_in_the_queue_also_when_the_disk_is_full(disk: SmallDisk) -> None:
    async with a_slot(disk.path, journal_bytes=ROTATES) as slot:
        running = slot.hand_over("sleep", "1000")
        await slot.start_of(running)
        keeper = slot.keeper_pid()
        waiting = [slot.hand_over("true") for _ in range(150)]
        disk.fill()
        for ref in waiting:
            slot.slot.stop(ref)
        assert never_began(await slot.end_of(waiting[-1]))
        slot.slot.stop(running)
        assert (await slot.end_of(running)).signal == signal.SIGTERM
        assert slot.keeper_pid() == keeper
        disk.empty()


@pytest.mark.parametrize(
    ("failpoint", "ends"),
    [
        ("keeper.intent.before_write:2", 1),
        ("keeper.start.before_write:2", 1),
        ("keeper.exit.before_write:2", 1),
        ("keeper.exit.after_write:2", 2),
        ("keeper.journal.before_rotate:1", 0),
        ("keeper.journal.after_rotate:1", 0),
    ],
)
async def test_a_keeper_that_dies_at_an_arrow_leaves_either_a_result_or_a_loss(
    tmp_path: Path, failpoint: str, ends: int
) -> None:
    async with a_slot(tmp_path, crash_at=failpoint) as slot:
        refs = []
        for _ in range(2):
            refs.append(slot.hand_over("/bin/sh", "-c", "exit 5"))
            await slot.until(lambda: refs[-1] in [*slot.lost, *slot.ended()], f"an end of {refs[-1]}")
            if slot.lost:
                break
        assert len(slot.ended()) == ends
        assert slot.others_in_group() == []
        assert [record.code for record in slot.records if isinstance(record, ExitRecord)] == [5] * ends


async def test_a_journal_goes_on_in_the_next_segment_after_its_keeper_died_between_two(
    tmp_path: Path,
) -> None:
    async with a_slot(tmp_path, journal_bytes=ROTATES, crash_at="keeper.journal.after_rotate:2") as slot:
        while not slot.lost:
            ref = slot.hand_over("true")
            await slot.until(lambda ref=ref: ref in [*slot.lost, *slot.ended()], f"an end of {ref}")
        ended = slot.ended()
        found = await slot.restart_agent()
        assert {record.ref for record in found.ended} == set(ended)
        assert len(list((tmp_path / "slot").glob("journal.*"))) >= 2
