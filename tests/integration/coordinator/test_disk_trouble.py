"""A disk that is full, read-only or broken: what is refused, what is recorded, when the process ends."""

import json
import urllib.error
import urllib.request
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support import fault_mount as fault_mounts
from tests.support import small_disk as small_disks
from tests.support.coordinator_process import CoordinatorProcess, wait_until
from tests.support.fault_mount import FaultMount, fault_mount
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.transcript import SpokenAgent, Transcript, exited
from windlass.client import Client
from windlass_proto.errors import NoRoom, Unavailable
from windlass_proto.model.ids import JobId, TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import JobState
from windlass_proto.v1 import agent_pb2 as wire
from windlass_proto.v1 import agent_pb2_grpc, jobs_pb2

needs_small_disk = pytest.mark.skipif(bool(small_disks.lacking()), reason=small_disks.lacking())
needs_fault_mount = pytest.mark.skipif(bool(fault_mounts.lacking()), reason=fault_mounts.lacking())

WITHIN_S = 30.0
DISK_FAILED = 3
MIB = 1 << 20


def a_job(name: str = "job") -> JobSpec:
    return JobSpec(name=name, tasks=(TaskSpec(name=TaskName("task"), command=Argv(args=("true",))),))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", size_bytes=64 * MIB) as disk:
        yield disk


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultMount]:
    with fault_mount(tmp_path / "mount", tmp_path / "root") as mount:
        yield mount


@pytest.fixture
def on_small_disk(disk: SmallDisk, tmp_path: Path) -> Iterator[CoordinatorProcess]:
    coordinator = CoordinatorProcess(disk.path / "data")
    coordinator.log = tmp_path / "coordinator.log"
    with coordinator:
        yield coordinator


@pytest.fixture
def on_faulty(faulty: FaultMount, tmp_path: Path) -> Iterator[CoordinatorProcess]:
    coordinator = CoordinatorProcess(faulty.path / "data", LIMITS_LOG_BYTES_PER_ATTEMPT="1000")
    coordinator.log = tmp_path / "coordinator.log"
    with coordinator:
        yield coordinator


@asynccontextmanager
async def an_agent(coordinator: CoordinatorProcess) -> AsyncIterator[SpokenAgent]:
    transcript = Transcript(coordinator)
    agent = SpokenAgent(transcript, "agent")
    await agent.enter()
    yield agent
    await transcript.close()


def readiness(coordinator: CoordinatorProcess) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{coordinator.http_address}/health/ready", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def wait_until_ready(coordinator: CoordinatorProcess) -> None:
    wait_until(lambda: readiness(coordinator)[0] == 200, within_s=WITHIN_S, what="it is ready again")


def events(coordinator: CoordinatorProcess) -> list[str]:
    return [json.loads(line)["event"] for line in coordinator.log.read_text().splitlines()]


@needs_small_disk
async def test_on_a_full_disk_submits_are_refused_and_results_and_stops_land(
    disk: SmallDisk, on_small_disk: CoordinatorProcess
) -> None:
    async with Client(on_small_disk.profile) as client, an_agent(on_small_disk) as agent:
        ending, stopping = await client.submit(a_job("ending")), await client.submit(a_job("stopping"))
        (first, second) = await agent.poll(want=2)
        disk.fill()

        wait_until(
            lambda: readiness(on_small_disk)[0] == 503, within_s=WITHIN_S, what="it says that it is full"
        )
        with pytest.raises(NoRoom, match=f"the disk of {disk.path / 'data'} is full"):
            await client.submit(a_job())
        await agent.report((first, exited(7)))
        await client.stop(stopping)
        await agent.report((second, exited(0)))
        assert await agent.heartbeat() is not None

        assert (await client.get(ending)).state is JobState.FAILED
        assert (await client.get(stopping)).state is JobState.STOPPED
        assert "disk.reserve_given_up" in events(on_small_disk)
        assert not (disk.path / "data/reserve").exists()

        disk.empty()
        wait_until_ready(on_small_disk)
        assert (await client.get(await client.submit(a_job()))).state is JobState.WAITING
        assert (disk.path / "data/reserve").stat().st_size == 16 * MIB


@needs_small_disk
async def test_on_a_full_disk_no_work_is_handed_out_until_there_is_room(
    disk: SmallDisk, on_small_disk: CoordinatorProcess
) -> None:
    async with Client(on_small_disk.profile) as client, an_agent(on_small_disk) as agent:
        running = await client.submit(a_job())
        (ref,) = await agent.poll(want=1)
        waiting = await client.submit(a_job())
        disk.fill()
        await agent.report((ref, exited(0)))
        assert "disk.reserve_given_up" in events(on_small_disk)

        assert await agent.poll(want=1, wait_s=1) == []
        disk.empty()
        wait_until_ready(on_small_disk)

        assert len(await agent.poll(want=1)) == 1
        assert (await client.get(running)).state is JobState.SUCCEEDED
        assert (await client.get(waiting)).state is JobState.RUNNING


@needs_small_disk
async def test_a_coordinator_starts_on_a_disk_that_is_full(
    disk: SmallDisk, on_small_disk: CoordinatorProcess
) -> None:
    async with Client(on_small_disk.profile) as client:
        job_id = await client.submit(a_job())
    on_small_disk.kill()
    disk.fill()
    on_small_disk.start()

    async with Client(on_small_disk.profile) as client:
        await client.stop(job_id)
        assert (await client.get(job_id)).state is JobState.STOPPED
    assert readiness(on_small_disk)[0] == 503


@needs_fault_mount
@pytest.mark.parametrize("name", ["windlass.db-wal"])
async def test_after_a_failed_sync_the_process_ends_at_once_and_the_next_has_what_was_acknowledged(
    faulty: FaultMount, on_faulty: CoordinatorProcess, name: str
) -> None:
    async with Client(on_faulty.profile) as client:
        kept = await client.submit(a_job("kept"), idempotency_key="kept")
        faulty.fail("fsync", path=f"*{name}", times=1)
        with pytest.raises(Unavailable):
            await client.submit(a_job("lost"), idempotency_key="lost")

    assert on_faulty.exit_code() == DISK_FAILED
    last = json.loads(on_faulty.log.read_text().splitlines()[-1])
    assert (last["event"], last["level"]) == ("coordinator.disk_failed", "critical")
    assert "windlass.db" in last["reason"]
    faulty.clear()
    on_faulty.start()
    async with Client(on_faulty.profile) as client:
        assert [job.job_id async for job in client.list(name_contains="kept")] == [kept]
        again = await client.submit(a_job("lost"), idempotency_key="lost")
        assert len([job async for job in client.list()]) == 2
        assert (await client.get(again)).state is JobState.WAITING


@needs_fault_mount
async def test_while_nothing_can_be_written_heartbeats_are_answered_and_it_recovers_alone(
    faulty: FaultMount, on_faulty: CoordinatorProcess
) -> None:
    async with Client(on_faulty.profile) as client, an_agent(on_faulty) as agent:
        job_id = await client.submit(a_job())
        await agent.heartbeat()  # the first one confirms the session, which is a write
        for op in ("write", "create", "truncate", "unlink"):
            faulty.fail(op, error="EROFS")

        async with Client(on_faulty.profile, patience=timedelta()) as impatient:
            with pytest.raises(Unavailable, match=r"windlass\.db"):
                await impatient.stop(job_id)
        assert readiness(on_faulty)[0] == 503
        assert await agent.heartbeat() is not None

        faulty.clear()
        wait_until_ready(on_faulty)
        await client.stop(job_id)
        assert (await client.get(job_id)).state is JobState.STOPPED
    assert "store.recovered" in events(on_faulty)


@needs_fault_mount
async def test_logs_wait_for_a_full_disk_and_go_on_in_the_same_stream(
    faulty: FaultMount, on_faulty: CoordinatorProcess
) -> None:
    async with Client(on_faulty.profile) as client, an_agent(on_faulty) as agent:
        job_id = await client.submit(a_job())
        (ref,) = await agent.poll(want=1)
        async with a_log_stream(on_faulty, agent, ref) as stream:
            assert (await stream.send(0, b"before ")).durable_end == 7
            faulty.fail("write", path="*.stdout", error="ENOSPC")
            await stream.write(7, b"while it is full")
            wait_until(
                lambda: "log.waits_for_disk" in events(on_faulty), within_s=WITHIN_S, what="the stream waits"
            )
            faulty.clear()

            assert (await stream.reply()).durable_end == 23
        assert await stored_log(client, job_id) == b"before while it is full"


@needs_fault_mount
async def test_a_log_that_could_not_be_synced_ends_the_process_and_is_sent_again(
    faulty: FaultMount, on_faulty: CoordinatorProcess
) -> None:
    async with Client(on_faulty.profile) as client, an_agent(on_faulty) as agent:
        job_id = await client.submit(a_job())
        (ref,) = await agent.poll(want=1)
        async with a_log_stream(on_faulty, agent, ref) as stream:
            assert (await stream.send(0, b"kept ")).durable_end == 5
            faulty.fail("fsync", path="*.stdout", times=1)
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.send(5, b"not acknowledged")
        assert on_faulty.exit_code() == DISK_FAILED

    faulty.clear()
    on_faulty.start()
    async with Client(on_faulty.profile) as client:
        async with a_log_stream(on_faulty, agent, ref) as stream:
            assert (await stream.send(5, b"not acknowledged")).durable_end == 21
        assert await stored_log(client, job_id) == b"kept not acknowledged"


@needs_fault_mount
async def test_an_attempts_logs_have_a_quota_beyond_which_only_gaps_are_stored(
    on_faulty: CoordinatorProcess,
) -> None:
    async with Client(on_faulty.profile) as client, an_agent(on_faulty) as agent:
        await client.submit(a_job())
        (ref,) = await agent.poll(want=1)
        async with a_log_stream(on_faulty, agent, ref) as stream:
            within = await stream.send(0, b"x" * 900)
            beyond = await stream.send(900, b"y" * 200)
            gap = await stream.send_gap(900, 200)
            other = await stream.send(0, b"z" * 101, stream=jobs_pb2.LOG_STREAM_STDERR)
            fits = await stream.send(0, b"z" * 100, stream=jobs_pb2.LOG_STREAM_STDERR)

    assert [(reply.durable_end, reply.quota) for reply in (within, beyond, gap, other, fits)] == [
        (900, False),
        (900, True),
        (1100, False),
        (0, True),
        (100, False),
    ]


class LogStream:
    """An AppendLog call, one message at a time."""

    def __init__(self, call: Any, ref: wire.AttemptRef) -> None:  # Any: its type is known to stubs only
        self._call = call
        self.ref = ref

    async def send(
        self, offset: int, data: bytes, *, stream: "jobs_pb2.LogStream" = jobs_pb2.LOG_STREAM_STDOUT
    ) -> wire.AppendLogReply:
        await self.write(offset, data, stream=stream)
        return await self.reply()

    async def send_gap(self, offset: int, length: int) -> wire.AppendLogReply:
        gap = wire.AppendLogRequest(offset=offset, gap_bytes=length, gap_reason="quota")
        gap.ref.CopyFrom(self.ref)
        gap.stream = jobs_pb2.LOG_STREAM_STDOUT
        await self._call.write(gap)
        return await self.reply()

    async def write(
        self, offset: int, data: bytes, *, stream: "jobs_pb2.LogStream" = jobs_pb2.LOG_STREAM_STDOUT
    ) -> None:
        await self._call.write(
            wire.AppendLogRequest(
                ref=self.ref, stream=stream, offset=offset, data=data, crc32=zlib.crc32(data)
            )
        )

    async def reply(self) -> wire.AppendLogReply:
        reply = await self._call.read()
        assert isinstance(reply, wire.AppendLogReply), await self._call.code()
        return reply


@asynccontextmanager
async def a_log_stream(
    coordinator: CoordinatorProcess, agent: SpokenAgent, ref: wire.AttemptRef
) -> AsyncIterator[LogStream]:
    metadata = (("authorization", f"Bearer {agent.credential}"),)
    async with coordinator.channel() as channel:
        stub: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(channel)
        yield LogStream(stub.AppendLog(metadata=metadata), ref)


async def stored_log(client: Client, job_id: JobId) -> bytes:
    """The stdout of the job's one attempt, as far as it is stored."""
    return b"".join([chunk.data async for chunk in client.read_log(job_id, "task", 0)])
