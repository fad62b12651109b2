"""Output while programs die, the log store is full, a node vanishes, nobody wants it (D04-D08, D13)."""

import asyncio

from tests.faults.scenarios import FaultProfile, NotRun, scenario
from tests.support import small_disk
from tests.support.chaos_proxy import chaos_proxy
from tests.support.output_pattern import BLOCK_BYTES, expected, writes, writes_until
from tests.support.world import World
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import FullSpool
from windlass_proto.model.states import AttemptState, JobState, LogState, NodeState
from windlass_proto.model.status import LogChunk

MIB = 1 << 20


async def stored(world: World, job_id: JobId, *, attempt: int = 0) -> int:
    """How much of it can be read."""
    chunks = [chunk async for chunk in world.client.read_log(job_id, "t", offset=-1, attempt=attempt)]
    return max((chunk.offset + len(chunk.data) + chunk.gap_bytes for chunk in chunks), default=0)


async def until_more_is_stored(world: World, job_id: JobId) -> None:
    before = await stored(world, job_id)

    async def more() -> bool:
        return await stored(world, job_id) > before

    await world.until(more)


async def everything(world: World, job_id: JobId, *, attempt: int = 0) -> list[LogChunk]:
    """Each byte once and in order, compared with what was written there; no gap."""
    chunks: list[LogChunk] = []
    end = 0
    async with asyncio.timeout(120):
        async for chunk in world.client.follow_log(job_id, "t", attempt=attempt):
            assert chunk.offset == end
            assert chunk.gap_bytes == 0
            assert chunk.data == expected(end, len(chunk.data))
            end += len(chunk.data)
            chunks.append(chunk)
    return chunks


def length(chunks: list[LogChunk]) -> int:
    return sum(len(chunk.data) for chunk in chunks)


@scenario("D04")
async def test_d04_no_byte_is_lost_or_doubled_when_the_coordinator_is_killed_during_appends(
    world: World, profile: FaultProfile
) -> None:
    await world.start(settings={"LEASE_REPLACE_AFTER": "120s"})
    gate = world.gate()
    job = await world.submit(world.task(writes_until(gate.path)))
    await world.until_started(job)
    for _ in range(profile.of(quick=2, full=20)):
        await until_more_is_stored(world, job)
        world.coordinator.kill()
        world.coordinator.start()
    await until_more_is_stored(world, job)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    chunks = await everything(world, job)
    assert length(chunks) % BLOCK_BYTES == 0
    assert chunks[-1].state is LogState.COMPLETE


@scenario("D05")
async def test_d05_no_byte_is_lost_or_doubled_when_the_agent_is_killed_during_uploads(
    world: World, profile: FaultProfile
) -> None:
    await world.start(settings={"LEASE_REPLACE_AFTER": "120s"})
    (agent,) = world.agents
    gate = world.gate()
    job = await world.submit(world.task(writes_until(gate.path)))
    await world.until_started(job)
    for _ in range(profile.of(quick=2, full=20)):
        await until_more_is_stored(world, job)
        agent.kill()
        agent.start_again()
    await until_more_is_stored(world, job)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert len(world.ledger.starts(job)) == 1
    chunks = await everything(world, job)
    assert length(chunks) % BLOCK_BYTES == 0
    assert chunks[-1].state is LogState.COMPLETE


@scenario("D06")
async def test_d06_a_full_log_store_changes_no_result_and_the_log_comes_when_there_is_room(
    world: World,
) -> None:
    if why := small_disk.lacking():
        raise NotRun(why)
    place = world.directory / "small"
    disk = world.stack.enter_context(small_disk.small_disk(place, size_bytes=96 * MIB))
    world.coordinator = world.new_coordinator(place / "coordinator")
    await world.start(settings={"LEASE_REPLACE_AFTER": "120s"})
    gate = world.gate()
    size = 8 * MIB
    job = await world.submit(
        world.task(f"{writes(BLOCK_BYTES)}; {gate.wait}; {writes(size)}; exit 7"),
        fail_on_instance_failure=False,
    )
    await until_more_is_stored(world, job)
    disk.fill()
    gate.open()
    assert (await world.wait(job)).state is JobState.FAILED
    assert [attempt.exit_code for attempt in await world.attempts(job)] == [7]
    kept = [chunk async for chunk in world.client.read_log(job, "t")]
    assert b"".join(chunk.data for chunk in kept) == expected(0, length(kept))
    assert kept[-1].state is LogState.STREAMING
    (agent,) = world.agents
    assert agent.attempts(), "what is not stored is kept on the node"
    disk.empty()
    chunks = await everything(world, job)
    assert (length(chunks), chunks[-1].state) == (BLOCK_BYTES + size, LogState.COMPLETE)


@scenario("D06")
async def test_d06_beyond_the_size_that_is_stored_of_one_log_the_rest_is_one_gap(world: World) -> None:
    quota, size = 2 * MIB, 10 * MIB
    await world.start(settings={"LIMITS_LOG_BYTES_PER_ATTEMPT": str(quota)})
    (agent,) = world.agents
    job = await world.submit(world.task(f"{writes(size)}; exit 7"), fail_on_instance_failure=False)
    assert (await world.wait(job)).state is JobState.FAILED
    assert [attempt.exit_code for attempt in await world.attempts(job)] == [7]
    async with asyncio.timeout(60):
        chunks = [chunk async for chunk in world.client.follow_log(job, "t")]
    kept, gaps = length(chunks), [chunk for chunk in chunks if chunk.gap_bytes]
    assert b"".join(chunk.data for chunk in chunks) == expected(0, kept)
    assert 0 < kept <= quota
    assert [(gap.offset, gap.gap_bytes) for gap in gaps] == [(kept, size - kept)]
    assert chunks[-1].state is LogState.PARTIAL
    await world.until(lambda: agent.attempts() == [])


@scenario("D06")
async def test_d06_a_patient_command_does_not_wait_for_room_that_nobody_needs(world: World) -> None:
    """Of what is stored no more nothing is kept on the node either."""
    size = 1000 * BLOCK_BYTES
    await world.start(
        settings={"LIMITS_LOG_BYTES_PER_ATTEMPT": str(2 * MIB)},
        agent_settings={"SPOOL_PER_ATTEMPT_BYTES": str(32 * MIB)},
    )
    job = await world.submit(world.task(writes(size), on_full_spool=FullSpool.BLOCK))
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    async with asyncio.timeout(60):
        chunks = [chunk async for chunk in world.client.follow_log(job, "t")]
    assert length(chunks) + sum(chunk.gap_bytes for chunk in chunks) == size


@scenario("D07")
async def test_d07_output_that_nobody_wants_any_more_is_given_up_quietly(world: World) -> None:
    proxy = world.stack.enter_context(chaos_proxy(world.coordinator.address))
    await world.start(via=proxy.address, settings={"LEASE_REPLACE_AFTER": "120s"})
    (agent,) = world.agents
    gate = world.gate()
    proxy.up.bytes_per_s = 2 * MIB
    job = await world.submit(world.task(f"{writes(48 * MIB)}; {gate.wait}"))
    await until_more_is_stored(world, job)
    await world.stop(job)
    assert (await world.wait(job)).state is JobState.STOPPED
    assert agent.attempts(), "most of the output is still on the node"
    assert await world.client.delete(job)
    passed = proxy.up.passed_bytes
    await world.until(lambda: "event=logs.revoked" in agent.said)
    await world.until(lambda: agent.attempts() == [])
    assert agent.said.count("event=logs.revoked") == 1
    proxy.up.bytes_per_s = 0
    lines = agent.said.count("\n")
    assert (await world.wait(await world.submit("true"))).state is JobState.SUCCEEDED
    assert agent.said.count("\n") < lines + 100
    assert proxy.up.passed_bytes < passed + 24 * MIB, "the rest was not sent"


@scenario("D08")
async def test_d08_a_follower_gets_each_byte_once_and_an_end_mark_only_at_the_end(
    world: World, profile: FaultProfile
) -> None:
    size = BLOCK_BYTES * profile.of(quick=400, full=4000)  # several segments of 8 MiB
    await world.start()
    gate = world.gate()
    job = await world.submit(world.task(f"{writes(size)}; {gate.wait}; {writes(size)}"))
    await world.until_started(job)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(everything(world, job))

        async def half_is_stored() -> bool:
            return await stored(world, job) == size

        await world.until(half_is_stored)
        assert not following.done()
        gate.open()
    chunks = following.result()
    assert length(chunks) == 2 * size
    assert [chunk.state for chunk in chunks if chunk.state] == [LogState.COMPLETE]
    assert chunks[-1].state is LogState.COMPLETE


@scenario("D13")
async def test_d13_when_a_node_vanishes_its_output_is_partial_at_what_was_acknowledged(world: World) -> None:
    await world.start(agents=1)
    (agent,) = world.agents
    gate = world.gate()
    job = await world.submit(world.task(writes_until(gate.path)))
    await until_more_is_stored(world, job)
    agent.kill_all()
    acknowledged = await stored(world, job)
    await world.add_agent()
    await world.until_node(agent, NodeState.SILENT)
    await world.until_started(job, attempt=2)
    gate.open()
    assert (await world.wait(job)).state is JobState.SUCCEEDED
    assert [one.state for one in await world.attempts(job)] == [AttemptState.LOST, AttemptState.SUCCEEDED]
    first = await everything(world, job, attempt=1)
    assert (length(first), first[-1].state) == (acknowledged, LogState.PARTIAL)
    second = await everything(world, job, attempt=2)
    assert second[-1].state is LogState.COMPLETE
    agent.start_again()  # comes back without its old attempt, and tidies up
    await world.until_ready(agent)
