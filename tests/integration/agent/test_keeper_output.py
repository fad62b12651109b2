"""A command's output in segment files: byte for byte, or with its loss declared."""

import asyncio
import hashlib
from functools import partial
from pathlib import Path

from tests.support.keeper_slots import a_slot, eventually
from windlass_agent.keeper.output import RETRY_S
from windlass_agent.spool.attempt_dir import SEGMENT_BYTES, OutputGap, OutputSpool
from windlass_proto.model.states import LogStream

NOISE = """
import hashlib, os
for i in range({count}):
    os.write({fd}, hashlib.sha512(b'%d' % i).digest() * 1024)
"""


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("stdout.[0-9]*"))


def noise(count: int) -> bytes:
    return b"".join(hashlib.sha512(b"%d" % i).digest() * 1024 for i in range(count))


async def test_binary_output_is_kept_byte_for_byte_across_segments(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("python3", "-c", NOISE.format(count=400, fd=1) + NOISE.format(count=3, fd=2))
        record = await slot.end_of(ref)
        assert slot.output(ref) == noise(400)
        assert slot.output(ref, "stderr") == noise(3)
        names = sorted(path.name for path in slot.output_dir(ref).iterdir())
        spool = OutputSpool(slot.output_dir(ref), LogStream.STDOUT)
        assert spool.produced_end() == len(noise(400))
        assert spool.read(SEGMENT_BYTES - 5, 100) == noise(400)[SEGMENT_BYTES - 5 : SEGMENT_BYTES]
        assert spool.read(SEGMENT_BYTES, 100) == noise(400)[SEGMENT_BYTES : SEGMENT_BYTES + 100]
    assert (record.stdout_end, record.stderr_end) == (len(noise(400)), len(noise(3)))
    assert names == ["stderr.000000", *(f"stdout.{i:06d}" for i in range(4))]


async def test_output_that_ends_with_a_segment_makes_no_empty_one(tmp_path: Path) -> None:
    async with a_slot(tmp_path, segment_bytes=65536) as slot:
        ref = slot.hand_over("head", "-c", str(3 * 65536), "/dev/zero")
        record = await slot.end_of(ref)
        assert [path.stat().st_size for path in sorted(slot.output_dir(ref).iterdir())] == [65536] * 3
    assert (record.code, record.stdout_end) == (0, 3 * 65536)


async def test_a_pause_at_a_segments_end_is_not_the_end(tmp_path: Path) -> None:
    line = "head -c 65536 /dev/zero; sleep 0.2; echo more; head -c 65531 /dev/zero; sleep 0.2; echo last"
    async with a_slot(tmp_path, segment_bytes=65536) as slot:
        ref = slot.hand_over("/bin/sh", "-c", line)
        record = await slot.end_of(ref)
        assert slot.output(ref) == bytes(65536) + b"more\n" + bytes(65531) + b"last\n"
    assert record.code == 0


async def test_a_silent_command_leaves_no_file(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("true")
        await slot.end_of(ref)
        assert not slot.output_dir(ref).exists()


async def test_a_script_may_open_its_outputs_anew(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over(
            "/bin/sh", "-c", "echo one; echo two > /dev/stdout; echo e1 >&2; echo e2 > /dev/stderr"
        )
        await slot.end_of(ref)
        assert slot.output(ref) == b"one\ntwo\n"
        assert slot.output(ref, "stderr") == b"e1\ne2\n"


async def test_output_can_be_read_while_the_command_runs(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("/bin/sh", "-c", "echo first; exec sleep 1000")
        await eventually(lambda: slot.output(ref) == b"first\n")
        slot.slot.stop(ref)
        await slot.end_of(ref)


async def test_beyond_the_spool_limit_output_is_dropped_and_the_loss_declared(tmp_path: Path) -> None:
    async with a_slot(tmp_path, segment_bytes=1 << 20, spool_limit_bytes=3 << 20) as slot:
        ref = slot.hand_over("head", "-c", str(10 << 20), "/dev/zero")
        record = await slot.end_of(ref)
        spool = OutputSpool(slot.output_dir(ref), LogStream.STDOUT, segment_bytes=1 << 20)
        assert spool.gaps() == (
            OutputGap(offset=3 << 20, length=7 << 20, reason="the attempt's spool limit was reached"),
        )
        assert len(slot.output(ref)) == 3 << 20
        assert spool.produced_end() == 10 << 20
    assert (record.code, record.stdout_end) == (0, 10 << 20)


async def test_output_goes_on_behind_the_gap_once_there_is_room(tmp_path: Path) -> None:
    written, go = tmp_path / "written", tmp_path / "go"
    line = (
        f"head -c 4000000 /dev/zero; touch {written};"
        f" while [ ! -e {go} ]; do echo tick; sleep 0.02; done; echo after"
    )
    async with a_slot(tmp_path / "state", segment_bytes=1 << 20, spool_limit_bytes=2 << 20) as slot:
        ref = slot.hand_over("/bin/sh", "-c", line)
        spool = OutputSpool(slot.output_dir(ref), LogStream.STDOUT, segment_bytes=1 << 20)
        await eventually(written.exists)
        spool.release(2 << 20)
        await eventually((slot.output_dir(ref) / "stdout.000003").exists)
        go.touch()
        record = await slot.end_of(ref)
        (gap,) = spool.gaps()
        stored = spool.read(gap.end, 1 << 20)
    assert gap.offset == 2 << 20
    assert gap.end + len(stored) == record.stdout_end
    assert stored.endswith(b"tick\nafter\n")


async def test_output_that_cannot_be_stored_does_not_hold_the_command(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the directory should be")
    async with a_slot(tmp_path / "state") as slot:
        record = await slot.run_shell("echo lost", output_dir=str(blocked / "attempt"))
    assert (record.code, record.stdout_end) == (0, 5)


def _has_more(spool: OutputSpool, than: int) -> bool:
    return spool.produced_end() > than


PATIENT = {"on_full_spool": "block"}


async def test_a_command_that_asked_for_it_waits_for_room_and_loses_nothing(tmp_path: Path) -> None:
    async with a_slot(tmp_path, segment_bytes=1 << 20, spool_limit_bytes=3 << 20) as slot:
        ref = slot.hand_over("python3", "-c", NOISE.format(count=160, fd=1), **PATIENT)
        spool = OutputSpool(slot.output_dir(ref), LogStream.STDOUT, segment_bytes=1 << 20)
        fetched = b""
        while len(fetched) < len(noise(160)):
            await eventually(partial(_has_more, spool, len(fetched)))
            fetched += spool.read(len(fetched), 1 << 20)
            assert sum(path.stat().st_size for path in slot.output_dir(ref).iterdir()) <= (4 << 20)
            spool.release(len(fetched))
        record = await slot.end_of(ref)
        assert fetched == noise(160)
        assert spool.gaps() == ()
    assert (record.code, record.stdout_end) == (0, len(noise(160)))


async def test_a_command_that_waits_for_room_can_be_stopped(tmp_path: Path) -> None:
    async with a_slot(tmp_path, segment_bytes=1 << 20, spool_limit_bytes=2 << 20) as slot:
        ref = slot.hand_over("sh", "-c", "head -c 8000000 /dev/zero; exec sleep 1000", **PATIENT)
        await eventually((slot.output_dir(ref) / "stdout.000001").exists)
        slot.slot.stop(ref)
        record = await slot.end_of(ref)
        spool = OutputSpool(slot.output_dir(ref), LogStream.STDOUT, segment_bytes=1 << 20)
        stored = len(slot.output(ref))
        assert record.stdout_end == stored + sum(gap.length for gap in spool.gaps())
    assert record.stopped


async def test_what_the_pipe_holds_when_a_patient_command_ends_is_stored_beyond_the_limit(
    tmp_path: Path,
) -> None:
    async with a_slot(tmp_path, segment_bytes=1 << 20, spool_limit_bytes=1 << 20) as slot:
        ref = slot.hand_over("python3", "-c", NOISE.format(count=17, fd=1), **PATIENT)  # 1 MiB and 64 KiB
        record = await slot.end_of(ref)
        assert slot.output(ref) == noise(17)
    assert (record.code, record.stdout_end) == (0, len(noise(17)))


async def test_the_slots_share_of_the_nodes_spool_limits_every_command(tmp_path: Path) -> None:
    async with a_slot(tmp_path, segment_bytes=1 << 20) as slot:
        slot.slot.limit_spool(attempt_bytes=8 << 20, slot_bytes=2 << 20)
        ref = slot.hand_over("head", "-c", str(5 << 20), "/dev/zero")
        await slot.end_of(ref)
        spool = OutputSpool(slot.output_dir(ref), LogStream.STDOUT, segment_bytes=1 << 20)
        assert spool.gaps() == (
            OutputGap(offset=2 << 20, length=3 << 20, reason="the node's spool limit was reached"),
        )
        slot.slot.limit_spool(attempt_bytes=8 << 20, slot_bytes=9 << 20)
        ref = slot.hand_over("head", "-c", str(5 << 20), "/dev/zero")
        await slot.end_of(ref)
        assert len(slot.output(ref)) == 5 << 20


async def test_a_gap_that_cannot_be_written_down_goes_on_until_it_can(tmp_path: Path) -> None:
    """Else a reader would take the hole in the segment for output."""
    written, go = tmp_path / "written", tmp_path / "go"
    line = (
        f"head -c {3 << 20} /dev/zero; touch {written};"  # then the pipe holds the last MiB at most
        f" while [ ! -e {go} ]; do echo tick; sleep 0.02; done; echo after"
    )
    async with a_slot(tmp_path / "state", segment_bytes=1 << 20, spool_limit_bytes=1 << 20) as slot:
        ref = slot.hand_over("/bin/sh", "-c", line)
        spool = OutputSpool(slot.output_dir(ref), LogStream.STDOUT, segment_bytes=1 << 20)
        await eventually(written.exists)
        in_the_way = slot.output_dir(ref) / "stdout.gaps"
        in_the_way.mkdir()
        (first,) = segments(slot.output_dir(ref))
        first.unlink()
        await asyncio.sleep(2 * RETRY_S)
        assert segments(slot.output_dir(ref)) == []
        in_the_way.rmdir()
        await eventually(lambda: segments(slot.output_dir(ref)) != [])
        go.touch()
        record = await slot.end_of(ref)
        (gap,) = spool.gaps()
        assert gap.offset == 1 << 20
        stored = spool.read(gap.end, 1 << 20)
    assert gap.end + len(stored) == record.stdout_end
    assert stored.endswith(b"after\n")
