"""What readers of output see: any bytes, soon, harmless on a terminal, any range (D02, D10, D11, D14)."""

import asyncio
import os
import pty
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.faults.scenarios import FaultProfile, scenario
from tests.support.output_pattern import BLOCK_BYTES, expected, writes
from tests.support.world import World
from windlass_proto.errors import InvalidRequest
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import JobState

SEEN_WITHIN_S = 2.0
STEERING = (
    b"\x1b]0;title\x07"  # the window's title
    b"\x1b]52;c;aGVsbG8=\x07"  # the clipboard
    b"\x1b[2J\x1b[10;10H\x1b[?25l"  # clears, moves and hides
    b"\x9b31m\x08\x7f\x00"
    b"<script>alert(1)</script>&amp;\r\nplain\n"
)


def windlass(world: World, *arguments: str) -> list[str]:
    profile = world.directory / "profile.toml"
    profile.write_text(
        f'coordinator = "{world.coordinator.address}"\ntoken_file = "{world.coordinator.token_file}"\n'
    )
    return [sys.executable, "-m", "windlass.cli.main", "--profile", str(profile), *arguments]


async def piped(command: Sequence[str]) -> bytes:
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def on_a_terminal(command: Sequence[str]) -> bytes:
    """What a terminal is sent."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            said += piece
        assert process.wait(60) == 0, said
    os.close(ours)
    return said


async def printed(world: World, content: bytes) -> JobId:
    """A job that has written these bytes."""
    (world.directory / "content").write_bytes(content)
    job = await world.submit(world.task(f"cat {world.directory}/content"))
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    return job


@scenario("D02")
async def test_d02_any_bytes_are_downloaded_as_they_were_written(world: World, profile: FaultProfile) -> None:
    odd = bytes(range(256)) + b"\r\r\r\xff\xfe\xc3\x28\xed\xa0\x80\x00\x00" + b"\r" * 1000
    content = odd + random.Random(2).randbytes(profile.of(quick=1 << 20, full=64 << 20)) + odd
    await world.start()
    job = await printed(world, content)
    assert await world.log(job) == content
    assert await piped(windlass(world, "logs", job, "-f")) == content


@scenario("D10")
async def test_d10_a_line_now_and_then_is_seen_within_two_seconds(
    world: World, profile: FaultProfile
) -> None:
    rounds = profile.of(quick=3, full=10)
    await world.start()
    gates = [world.gate() for _ in range(rounds)]
    lines = "; ".join(f"{gate.wait}; echo line" for gate in gates)
    job = await world.submit(world.task(lines))
    await world.until_started(job)
    loop = asyncio.get_running_loop()
    took_s = []
    seen = b""
    async with asyncio.timeout(120):
        follow = world.client.follow_log(job, "t")
        for gate in gates:
            await world.lasts(1.5)
            gate.open()
            opened_s = loop.time()
            before = seen
            while seen == before:
                seen += (await anext(follow)).data
            took_s.append(loop.time() - opened_s)
        await follow.aclose()
    assert seen == b"line\n" * rounds
    assert sorted(took_s)[rounds // 2] < SEEN_WITHIN_S, took_s


@scenario("D11")
async def test_d11_what_steers_a_terminal_is_harmless_on_one_and_unchanged_in_a_download(
    world: World,
) -> None:
    """Markup is text here: no page of ours shows output yet."""
    await world.start()
    job = await printed(world, STEERING)
    assert await piped(windlass(world, "logs", job, "-f")) == STEERING
    shown = await asyncio.to_thread(on_a_terminal, windlass(world, "logs", job, "-f"))
    assert not set(shown) & {0x00, 0x07, 0x08, 0x1B, 0x7F}
    assert b"title" not in shown
    assert b"aGVsbG8" not in shown
    assert b"<script>alert(1)</script>" in shown
    assert b"plain" in shown


@scenario("D14")
async def test_d14_odd_ranges_give_the_right_slice_or_a_clear_error(world: World) -> None:
    size = 40 * BLOCK_BYTES
    await world.start()
    job = await world.submit(world.task(writes(size)))
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert len(await world.log(job)) == size

    async def read(offset: int, limit: int) -> bytes:
        return b"".join(
            [chunk.data async for chunk in world.client.read_log(job, "t", offset=offset, limit=limit)]
        )

    before = world.coordinator.usage().memory_bytes
    for offset, limit in [(0, 1), (1, 7), (100, 3 << 20), (5, 0), (size - 3, 100), (65_520, 2), (2**40, 5)]:
        assert await read(offset, limit) == expected(offset, size)[: _length(offset, limit, size)]
    for offset, limit in [(-1, 0), (-100, 10), (-size - 5, 10), (-(2**40), 3)]:
        begin = max(0, size + offset)
        assert await read(offset, limit) == expected(begin, _length(begin, limit, size))
    for offset, limit in [(0, 2**62), (2**62, 2**62), (3, 2**31)]:
        assert await read(offset, limit) == expected(offset % size, _length(offset, limit, size))
    with pytest.raises((InvalidRequest, ValueError)):
        await read(0, -1)
    with pytest.raises((InvalidRequest, ValueError)):
        await read(2**64, 1)
    assert world.coordinator.usage().memory_bytes < before + (64 << 20)


def _length(offset: int, limit: int, size: int) -> int:
    left = max(0, size - offset)
    return min(limit, left) if limit else left
