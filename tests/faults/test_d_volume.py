"""Much output, or in many pieces (D01, D03, D09, D12)."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.scenarios import FaultProfile, scenario
from tests.support.chaos_proxy import chaos_proxy
from tests.support.grpc_proxy import grpc_proxy
from tests.support.output_pattern import BLOCK_BYTES, expected, writes
from tests.support.world import World
from tests.support.world_processes import AgentProgram
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import FullSpool
from windlass_proto.model.states import JobState, LogState, LogStream

AGENT_MEMORY_BYTES = 150 << 20
MIB = 1 << 20


@dataclass(slots=True)
class Most:
    """The most that was seen."""

    memory_bytes: int = 0
    disk_bytes: int = 0


@asynccontextmanager
async def watched(agent: AgentProgram) -> AsyncIterator[Most]:
    """What the agent takes of memory, and output of the disk, while the context is open."""
    most = Most()

    async def watch() -> None:
        while True:
            most.memory_bytes = max(most.memory_bytes, agent.usage().memory_bytes)
            most.disk_bytes = max(most.disk_bytes, await asyncio.to_thread(spooled, agent.state))
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        yield most
        watching.cancel()


def spooled(state: Path) -> int:
    """Bytes on disk of output in spools, at one moment: what is deleted while others are looked at made room
    for what they have grown by, and does not count."""
    sizes = {}
    for path in (state / "attempts").glob("*/std*"):
        with suppress(FileNotFoundError):
            sizes[path] = path.stat().st_blocks * 512
    return sum(size for path, size in sizes.items() if path.exists())


@dataclass(slots=True)
class Received:
    """What a reader got of a stream."""

    stored_bytes: int = 0
    gap_bytes: int = 0
    end: int = 0
    state: LogState | None = None

    async def read(self, world: World, job_id: JobId, stream: LogStream = LogStream.STDOUT) -> None:
        """Follows to the end, and compares each byte with what was written there."""
        async for chunk in world.client.follow_log(job_id, "t", stream=stream):
            assert chunk.offset == self.end, "nothing is left out and nothing comes twice"
            assert chunk.data == expected(chunk.offset, len(chunk.data))
            self.stored_bytes += len(chunk.data)
            self.gap_bytes += chunk.gap_bytes
            self.end = chunk.offset + len(chunk.data) + chunk.gap_bytes
            self.state = chunk.state or self.state


@scenario("D01", limit_s=900)
async def test_d01_output_far_beyond_the_spool_is_dropped_and_counted_to_the_byte(
    world: World, profile: FaultProfile
) -> None:
    size = BLOCK_BYTES * profile.of(quick=1600, full=16_000)  # 100 MB and 1 GB, twice
    quota = profile.of(quick=32 * MIB, full=256 * MIB)
    proxy = world.stack.enter_context(chaos_proxy(world.coordinator.address))
    await world.start(
        via=proxy.address,
        settings={"LEASE_REPLACE_AFTER": "300s"},
        agent_settings={"SPOOL_PER_ATTEMPT_BYTES": str(quota)},
    )
    (agent,) = world.agents
    first, second = world.gate(), world.gate()
    body = f"{first.wait}; {writes(size)}; echo >> {second.path}.due; {second.wait}; {writes(size)}; exit 3"
    async with watched(agent) as most:
        job = await world.submit(world.task(body), fail_on_instance_failure=False)
        await world.until_started(job)
        proxy.cut()
        first.open()
        await world.until(second.path.with_name(f"{second.path.name}.due").exists)
        proxy.heal()
        second.open()
        assert (await world.wait(job, within_s=600)).state is JobState.FAILED
        received = Received()
        await received.read(world, job)
    assert [attempt.exit_code for attempt in await world.attempts(job)] == [3]
    assert received.stored_bytes + received.gap_bytes == 2 * size
    assert received.gap_bytes >= size - quota
    assert received.state is LogState.PARTIAL
    assert most.memory_bytes < AGENT_MEMORY_BYTES
    assert quota - MIB < most.disk_bytes <= quota + MIB


@scenario("D01", limit_s=900)
async def test_d01_a_command_that_asked_for_it_waits_for_room_and_loses_nothing(
    world: World, profile: FaultProfile
) -> None:
    size = BLOCK_BYTES * profile.of(quick=800, full=16_000)
    quota = 32 * MIB
    await world.start(agent_settings={"SPOOL_PER_ATTEMPT_BYTES": str(quota)})
    (agent,) = world.agents
    task = world.task(f"{writes(size)}; exit 3", on_full_spool=FullSpool.BLOCK)
    async with watched(agent) as most:
        job = await world.submit(task, fail_on_instance_failure=False)
        assert (await world.wait(job, within_s=600)).state is JobState.FAILED
        received = Received()
        await received.read(world, job)
    assert (received.stored_bytes, received.gap_bytes, received.state) == (size, 0, LogState.COMPLETE)
    assert [attempt.exit_code for attempt in await world.attempts(job)] == [3]
    assert most.disk_bytes <= quota + 3 * MIB  # what the pipes hold at the end comes on top
    assert most.memory_bytes < AGENT_MEMORY_BYTES


@scenario("D03")
async def test_d03_one_line_of_hundreds_of_megabytes_streams_in_bounded_memory(
    world: World, profile: FaultProfile
) -> None:
    size = profile.of(quick=20 * MIB, full=200 * MIB)
    await world.start()
    before = world.coordinator.usage().memory_bytes
    async with watched(world.agents[0]) as most:
        job = await world.submit(world.task(f"head -c {size} /dev/zero | tr '\\0' x"))
        assert (await world.wait(job)).state is JobState.SUCCEEDED
        length = 0
        async with asyncio.timeout(200):
            async for chunk in world.client.follow_log(job, "t"):
                assert chunk.data == b"x" * len(chunk.data)
                length += len(chunk.data)
    assert length == size
    assert most.memory_bytes < AGENT_MEMORY_BYTES
    assert world.coordinator.usage().memory_bytes < before + 150 * MIB


@scenario("D09")
async def test_d09_ten_thousand_tiny_writes_a_second_are_few_appends(
    world: World, profile: FaultProfile
) -> None:
    proxy = world.stack.enter_context(grpc_proxy(world.coordinator.address))
    await world.start(via=proxy.address)
    gate = world.gate()
    tiny = "import os, sys, time\nfor i in range(%d):\n os.write(1, b'x'); i %% 100 or time.sleep(0.01)"
    count = profile.of(quick=10_000, full=100_000)
    job = await world.submit(world.task(f'{sys.executable} -c "{tiny % count}"; {gate.wait}'))
    began_s = asyncio.get_running_loop().time()
    await world.until_started(job)

    async def all_stored() -> bool:
        chunks = [chunk async for chunk in world.client.read_log(job, "t", offset=count - 1)]
        return bool(chunks and chunks[0].data)

    await world.until(all_stored)
    took_s = asyncio.get_running_loop().time() - began_s
    assert proxy.pieces["AppendLog"] < 5 * took_s
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert await world.log(job) == b"x" * count


@scenario("D12")
async def test_d12_two_streams_at_once_are_each_exact(world: World, profile: FaultProfile) -> None:
    lines = profile.of(quick=30_000, full=1_000_000)
    program = (
        "import sys\n"
        f"for i in range({lines}):\n"
        " print(i, file=sys.stdout); print(-i, file=sys.stderr, end=chr(13) + chr(10))\n"
    )
    await world.start()
    job = await world.submit(world.task(f'{sys.executable} -c "{program}"'))
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert await world.log(job) == b"".join(b"%d\n" % i for i in range(lines))
    chunks = world.client.follow_log(job, "t", stream=LogStream.STDERR)
    errors = b"".join([chunk.data async for chunk in chunks])
    assert errors == b"".join(b"%d\r\n" % -i for i in range(lines))
