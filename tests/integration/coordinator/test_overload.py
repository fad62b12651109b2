"""More than a coordinator should serve: what is refused, what is closed, and who is served all the same."""

import asyncio
import signal
import socket
import sqlite3
import struct
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.coordinator_process import CoordinatorProcess, wait_until
from tests.support.transcript import SpokenAgent, Transcript
from windlass.client import Client
from windlass_coordinator.admin.database_copy import DATABASE_FILE
from windlass_proto import convert
from windlass_proto.errors import Overloaded
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.v1 import jobs_pb2, jobs_pb2_grpc

WITHIN_S = 30.0
PATIENT = timedelta(seconds=120)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = struct.pack(">I", 0)[1:] + b"\x04\x00" + bytes(4)
PING = struct.pack(">I", 8)[1:] + b"\x06\x00" + bytes(4) + b"12345678"


def a_job(*, tasks: int = 1) -> JobSpec:
    return JobSpec(
        name="job",
        tasks=tuple(TaskSpec(name=TaskName(f"task-{n}"), command=Argv(args=("true",))) for n in range(tasks)),
    )


@asynccontextmanager
async def a_coordinator(tmp_path: Path, **overload: int) -> AsyncIterator[CoordinatorProcess]:
    """With these bounds."""
    settings = {f"OVERLOAD_{name.upper()}": str(value) for name, value in overload.items()}
    process = CoordinatorProcess(tmp_path / "data", **settings)
    await asyncio.to_thread(process.start)
    try:
        yield process
    finally:
        process.kill()


@asynccontextmanager
async def stub_of(
    coordinator: CoordinatorProcess, *, token: str = ""
) -> AsyncIterator[tuple[Any, tuple[tuple[str, str], ...]]]:
    """A connection of its own with no client's manners: the stub, and the metadata of its calls."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(coordinator.grpc_address, options=options) as channel:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        yield jobs_pb2_grpc.JobServiceStub(channel), metadata


def metric(coordinator: CoordinatorProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://{coordinator.http_address}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no metric {name}")


async def until(holds: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, holds, within_s=WITHIN_S, what=what)


def connected(coordinator: CoordinatorProcess) -> socket.socket:
    host, port = coordinator.grpc_address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=WITHIN_S)


def is_closed(one: socket.socket) -> bool:
    """Whether the other side has ended it; what it has said before is thrown away."""
    one.setblocking(False)
    with suppress(BlockingIOError):
        try:
            while one.recv(4096):
                pass
        except ConnectionError:
            return True
        return True
    return False


async def test_of_too_many_connections_without_a_token_the_oldest_are_closed(tmp_path: Path) -> None:
    async with a_coordinator(tmp_path, strangers=10) as coordinator, Client(coordinator.profile) as client:
        await client.submit(a_job())
        crowd = [connected(coordinator) for _ in range(100)]
        for one in crowd:  # else the library would close them by itself
            one.sendall(PREFACE + SETTINGS)
        try:
            await until(lambda: sum(is_closed(one) for one in crowd) >= 90, "the surplus is closed")
            assert (await client.submit(a_job())) != ""
        finally:
            for one in crowd:
                one.close()
        counted = 'windlass_refused_total{bound="strangers"}'
        await until(lambda: metric(coordinator, counted) >= 90, "they are counted")


async def test_a_connection_whose_calls_are_given_up_at_once_again_and_again_is_closed(
    tmp_path: Path,
) -> None:
    async with a_coordinator(tmp_path, offences_per_s=2) as coordinator, Client(coordinator.profile) as user:
        job_id = await user.submit(a_job())
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        async with stub_of(coordinator, token=coordinator.admin_token) as (stub, metadata):
            is_open = True
            async with asyncio.timeout(WITHIN_S):
                while is_open:
                    watch = stub.WatchJob(request, metadata=metadata)
                    try:
                        await watch.read()
                    except grpc.aio.AioRpcError:
                        is_open = False
                    watch.cancel()
        assert (await user.get(job_id)).job_id == job_id
        assert "connections.closed" in coordinator.log.read_text()


async def test_a_connection_without_valid_tokens_is_closed_in_the_end(tmp_path: Path) -> None:
    async with a_coordinator(tmp_path, offences_per_s=2) as coordinator:
        codes = set()
        async with stub_of(coordinator) as (stub, _), asyncio.timeout(WITHIN_S):
            while grpc.StatusCode.UNAVAILABLE not in codes:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.GetJob(jobs_pb2.GetJobRequest(job_id="x"))
                codes.add(refused.value.code())
        assert codes == {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE}


async def test_a_tenants_streams_are_bounded_and_the_refusal_says_when_to_come_again(tmp_path: Path) -> None:
    async with (
        a_coordinator(tmp_path, followers_per_tenant=2) as coordinator,
        Client(coordinator.profile) as client,
        stub_of(coordinator, token=coordinator.admin_token) as (stub, metadata),
    ):
        request = jobs_pb2.GetJobRequest(job_id=await client.submit(a_job()))
        watches = [stub.WatchJob(request, metadata=metadata) for _ in range(2)]
        for watch in watches:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WatchJob(request, metadata=metadata).read()

        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "overload.followers_per_tenant = 2" in (refused.value.details() or "")
        assert dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        assert (await client.get(request.job_id)).job_id == request.job_id
        for watch in watches:
            watch.cancel()


async def test_sessions_are_opened_no_faster_than_their_bound_and_all_in_the_end(tmp_path: Path) -> None:
    async with a_coordinator(tmp_path, sessions_per_s=4) as coordinator:
        transcript = Transcript(coordinator)
        agent = SpokenAgent(transcript, "agent")
        await agent.enter()
        while await agent.open_session() is not None:
            pass
        assert "RESOURCE_EXHAUSTED" in transcript.text()
        assert metric(coordinator, 'windlass_refused_total{bound="sessions_per_s"}') >= 1

        async with asyncio.timeout(WITHIN_S):
            while await agent.open_session() is None:
                await asyncio.sleep(0.05)
        await transcript.close()


async def codes_of_a_crowd(coordinator: CoordinatorProcess, *, calls: int) -> set[grpc.StatusCode]:
    """What calls come to that arrive while the coordinator stands still."""
    async with AsyncExitStack() as stack:
        of_connections = [
            await stack.enter_async_context(stub_of(coordinator, token=coordinator.admin_token))
            for _ in range(4)
        ]
        request = jobs_pb2.GetJobRequest(job_id="unknown")
        for stub, metadata in of_connections:
            await stub.GetJob(request, metadata=metadata).code()
        coordinator.process.send_signal(signal.SIGSTOP)
        waiting = [
            stub.GetJob(request, metadata=metadata)
            for stub, metadata in of_connections
            for _ in range(calls // len(of_connections))
        ]
        await asyncio.sleep(1)  # so that they are on the line, which nothing tells
        coordinator.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(WITHIN_S):
            return set(await asyncio.gather(*(call.code() for call in waiting)))


async def test_calls_that_come_by_the_thousand_are_answered_each_and_told_when_to_come_again(
    tmp_path: Path,
) -> None:
    async with a_coordinator(tmp_path, looks=100) as coordinator:
        codes = await codes_of_a_crowd(coordinator, calls=3600)
        assert grpc.StatusCode.CANCELLED not in codes
    async with a_coordinator(tmp_path, unread_calls=50) as coordinator:
        assert grpc.StatusCode.CANCELLED in await codes_of_a_crowd(coordinator, calls=3600)


async def test_thousands_of_submits_with_one_key_make_one_job_though_most_are_put_off(tmp_path: Path) -> None:
    bound = 'windlass_refused_total{bound="store_queue"}'
    async with (
        a_coordinator(tmp_path, store_queue=64) as coordinator,
        Client(coordinator.profile, patience=PATIENT, timeout=PATIENT) as client,
        asyncio.TaskGroup() as group,
    ):
        with closing(sqlite3.connect(coordinator.data / DATABASE_FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # a fast machine commits them as they come, and none would wait
            asked = [group.create_task(client.submit(a_job(), idempotency_key="key")) for _ in range(3000)]
            await until(lambda: metric(coordinator, bound) > 0, "submits are put off")
            other.execute("ROLLBACK")
        assert len(set(await asyncio.gather(*asked))) == 1
        assert len([job async for job in client.list()]) == 1


async def test_heartbeats_are_answered_while_submits_are_put_off(tmp_path: Path) -> None:
    async with a_coordinator(tmp_path, store_queue=32) as coordinator:
        transcript = Transcript(coordinator)
        agent = SpokenAgent(transcript, "agent")
        await agent.enter()
        async with Client(coordinator.profile, patience=timedelta()) as client:

            async def flood() -> None:
                while not done.is_set():
                    with suppress(Overloaded):
                        await client.submit(a_job(tasks=100))

            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for _ in range(100):
                    group.create_task(flood())
                bound = 'windlass_refused_total{bound="store_queue"}'
                await until(lambda: metric(coordinator, bound) > 0, "submits are put off")
                answers = [await agent.heartbeat() for _ in range(20)]
                done.set()
        assert None not in answers
        await transcript.close()


async def test_large_messages_and_large_headers_are_refused(tmp_path: Path) -> None:
    async with a_coordinator(tmp_path) as coordinator:
        token = coordinator.admin_token
        spec = convert.job_spec_to_wire(a_job())
        spec.description = "x" * (5 << 20)
        async with stub_of(coordinator, token=token) as (stub, metadata):
            with pytest.raises(grpc.aio.AioRpcError) as too_large:
                await stub.SubmitJob(jobs_pb2.SubmitJobRequest(spec=spec), metadata=metadata)
            headers = (*metadata, ("x-long", "x" * (1 << 20)))
            with pytest.raises(grpc.aio.AioRpcError) as too_long:
                await stub.GetJob(jobs_pb2.GetJobRequest(job_id="x"), metadata=headers)

        assert too_large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert too_long.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_flood_of_pings_ends_its_connection(tmp_path: Path) -> None:
    async with a_coordinator(tmp_path) as coordinator, Client(coordinator.profile) as client:
        flooder = connected(coordinator)
        with flooder:
            flooder.sendall(PREFACE + SETTINGS)

            def flood_until_closed() -> bool:
                try:
                    flooder.setblocking(True)
                    flooder.sendall(PING * 100)
                except OSError:
                    return True
                return is_closed(flooder)

            await until(flood_until_closed, "the connection of the pings is ended")
        assert await client.submit(a_job())


async def test_connections_are_bounded_and_those_that_ended_do_not_count(tmp_path: Path) -> None:
    async with a_coordinator(tmp_path, connections=20) as coordinator:
        for _ in range(30):
            async with stub_of(coordinator, token=coordinator.admin_token) as (stub, metadata):
                await stub.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata)
        crowd = [connected(coordinator) for _ in range(60)]
        try:
            await until(lambda: sum(is_closed(one) for one in crowd) >= 40, "the surplus is closed")
        finally:
            for one in crowd:
                one.close()
        async with Client(coordinator.profile, patience=PATIENT) as client:
            assert await client.submit(a_job())
