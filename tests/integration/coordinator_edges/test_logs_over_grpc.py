"""Output of commands on its way in (AppendLog) and out (ReadLog), over real gRPC and real files."""

import asyncio
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from tests.integration.coordinator_edges.log_server import JOB, LogServer, a_key, a_log_server
from windlass_coordinator.logstore import open_log_store
from windlass_coordinator.logstore.base import Gap, LogSlice, LogStore
from windlass_coordinator.rpc.append_log import IntakeLimits
from windlass_coordinator.rpc.read_log import StreamFacts
from windlass_proto.v1 import agent_pb2, agent_pb2_grpc, jobs_pb2, jobs_pb2_grpc

DEADLINE_S = 20


def a_piece(offset: int, data: bytes, *, index: int = 0, fence: int = 1) -> agent_pb2.AppendLogRequest:
    return agent_pb2.AppendLogRequest(
        ref=agent_pb2.AttemptRef(task_key=1, index=index, attempt=1, fence=fence),
        stream=jobs_pb2.LOG_STREAM_STDOUT,
        offset=offset,
        data=data,
        crc32=zlib.crc32(data),
    )


def a_lost_piece(offset: int, length: int) -> agent_pb2.AppendLogRequest:
    request = a_piece(offset, b"")
    request.gap_bytes, request.gap_reason = length, "spool full"
    return request


@asynccontextmanager
async def a_channel(port: int) -> AsyncIterator[grpc.aio.Channel]:
    async with asyncio.timeout(DEADLINE_S):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel


async def append(port: int, *requests: agent_pb2.AppendLogRequest) -> list[agent_pb2.AppendLogReply]:
    async with a_channel(port) as channel:
        call = agent_pb2_grpc.AgentServiceStub(channel).AppendLog(iter(requests))
        return [reply async for reply in call]


async def read(port: int, **fields: Any) -> list[jobs_pb2.LogChunk]:
    async with a_channel(port) as channel:
        call = jobs_pb2_grpc.JobServiceStub(channel).ReadLog(jobs_pb2.ReadLogRequest(**fields))
        return [chunk async for chunk in call]


def ends(replies: Sequence[agent_pb2.AppendLogReply]) -> list[int]:
    return [reply.durable_end for reply in replies]


def content(store: LogStore) -> bytes:
    data = b""
    while isinstance(found := store.read(a_key(), offset=len(data), limit=1 << 20), LogSlice) and found.data:
        data += found.data
    return data


async def until(condition: Callable[[], bool]) -> None:
    """Looks again and again until the condition holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_each_request_is_answered_in_order_when_its_bytes_are_on_disk(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        replies = await append(server.port, *[a_piece(10 * n, b"0123456789") for n in range(50)])

        assert ends(replies) == [10 * n + 10 for n in range(50)]
        assert server.store.durable_end(a_key()) == 500
        assert content(server.store) == b"0123456789" * 50


async def test_a_sender_that_pauses_gets_its_answer_without_sending_more(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server, a_channel(server.port) as channel:
        call = agent_pb2_grpc.AgentServiceStub(channel).AppendLog()
        for offset in (0, 3):
            await call.write(a_piece(offset, b"abc"))
            reply: Any = await call.read()
            assert reply.durable_end == offset + 3
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF


async def test_a_sender_that_pauses_after_much_gets_its_answer_too(tmp_path: Path) -> None:
    # More than is written at one go: what is left over must not wait for a byte that never comes.
    piece = IntakeLimits().write_bytes + 1
    async with a_log_server(tmp_path) as server, a_channel(server.port) as channel:
        call = agent_pb2_grpc.AgentServiceStub(channel).AppendLog()
        for offset in (0, piece):
            await call.write(a_piece(offset, bytes(piece)))
            reply: Any = await call.read()
            assert reply.durable_end == offset + piece
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF


async def test_a_sender_that_goes_too_far_is_told_where_to_go_on(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        replies = await append(
            server.port, a_piece(0, b"abc"), a_piece(5, b"fgh"), a_piece(1, b"bcde"), a_piece(5, b"fgh")
        )

        assert ends(replies) == [3, 3, 5, 8]
        assert content(server.store) == b"abcdefgh"


async def test_sending_everything_again_changes_nothing(tmp_path: Path) -> None:
    pieces = [a_piece(0, b"abc"), a_lost_piece(3, 4), a_piece(7, b"xyz")]
    async with a_log_server(tmp_path) as server:
        first = await append(server.port, *pieces)
        again = await append(server.port, *pieces)

        assert (ends(first), ends(again)) == ([3, 7, 10], [10, 10, 10])
        assert server.store.gaps(a_key()) == (Gap(offset=3, length=4, reason="spool full"),)


async def test_damaged_bytes_are_not_stored_and_asked_for_again(tmp_path: Path) -> None:
    damaged = a_piece(3, b"def")
    damaged.crc32 ^= 1
    async with a_log_server(tmp_path) as server:
        with capture_logs() as logged:
            replies = await append(server.port, a_piece(0, b"abc"), damaged, a_piece(3, b"def"))

        assert (replies[1].durable_end, replies[2].durable_end) in [(0, 6), (3, 6)]
        assert content(server.store) == b"abcdef"
        assert [entry["event"] for entry in logged] == ["log.corrupted"]


async def test_different_bytes_for_a_stored_stretch_are_logged_and_dropped(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        with capture_logs() as logged:
            await append(server.port, a_piece(0, b"abc"), a_piece(0, b"aXc"))

        assert content(server.store) == b"abc"
        assert [entry["event"] for entry in logged] == ["log.diverged"]


async def test_an_attempt_that_may_not_append_is_told_to_stop(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        replies = await append(server.port, a_piece(0, b"abc"), a_piece(3, b"old", fence=7))

        assert [reply.revoked for reply in replies] == [False, True]
        assert content(server.store) == b"abc"


async def test_logs_of_a_deleted_job_are_not_wanted(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        await append(server.port, a_piece(0, b"abc"))
        server.store.delete_job(JOB)

        assert [reply.revoked for reply in await append(server.port, a_piece(3, b"def"))] == [True]


async def test_permission_is_asked_for_once_per_attempt_and_again_after_a_while(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        await append(server.port, *[a_piece(n, b"a", index=n % 2) for n in range(20)])
        assert [ref.index for ref in server.records.asked] == [0, 1]

    hasty = IntakeLimits(admission=timedelta(0))
    async with a_log_server(tmp_path / "other", limits=hasty) as server:
        for n in range(3):
            await append(server.port, a_piece(n, b"a"))
        assert len(server.records.asked) == 3


async def test_a_request_that_names_no_stream_is_refused(tmp_path: Path) -> None:
    request = a_piece(0, b"abc")
    request.stream = jobs_pb2.LOG_STREAM_UNSPECIFIED
    async with a_log_server(tmp_path) as server:
        with pytest.raises(grpc.aio.AioRpcError):
            await append(server.port, request)


async def test_a_sender_that_vanishes_leaves_what_it_sent_and_others_go_on(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        async with a_channel(server.port) as channel:
            call = agent_pb2_grpc.AgentServiceStub(channel).AppendLog()
            await call.write(a_piece(0, b"abc"))
            await call.read()
            await call.write(a_piece(3, b"def"))
            call.cancel()

        assert ends(await append(server.port, a_piece(0, b"abcdefghi"))) == [9]
        assert content(server.store) == b"abcdefghi"


async def test_a_small_read_ahead_slows_the_sender_and_loses_nothing(tmp_path: Path) -> None:
    tight = IntakeLimits(read_ahead_bytes=1, total_read_ahead_bytes=1, sync_bytes=1, threads=1)
    async with a_log_server(tmp_path, limits=tight) as server:
        streams = [
            [a_piece(1000 * n, bytes([index]) * 1000, index=index) for n in range(30)] for index in range(4)
        ]
        replies = await asyncio.gather(*[append(server.port, *pieces) for pieces in streams])

        assert [ends(one)[-1] for one in replies] == [30_000] * 4
        assert server.store.read(a_key(3), offset=0, limit=1 << 20) == LogSlice(offset=0, data=b"\3" * 30_000)


async def start_server(directory: Path) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.coordinator_edges.log_server",
        str(directory),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


async def test_a_server_killed_again_and_again_ends_with_exactly_what_was_sent(tmp_path: Path) -> None:
    seed = 20260101
    chance = random.Random(seed)
    produced = chance.randbytes(3_000_000)
    durable = 0
    for life in range(4):
        process, port = await start_server(tmp_path)
        try:
            durable = await _send_until_killed(
                process,
                port,
                produced,
                start=durable,
                kill_after=chance.randrange(2, 12) if life < 3 else None,
            )
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    assert durable == len(produced)
    assert content(open_log_store(tmp_path)) == produced


async def _send_until_killed(
    process: asyncio.subprocess.Process, port: int, produced: bytes, *, start: int, kill_after: int | None
) -> int:
    """Sends from `start` on; returns the highest end that was answered."""
    pieces = [a_piece(n, produced[n : n + 50_000]) for n in range(start, len(produced), 50_000)]
    durable, answered = start, 0
    async with a_channel(port) as channel:
        try:
            async for reply in agent_pb2_grpc.AgentServiceStub(channel).AppendLog(iter(pieces)):
                assert reply.durable_end >= durable
                durable, answered = reply.durable_end, answered + 1
                if answered == kill_after:
                    process.send_signal(signal.SIGKILL)
        except grpc.aio.AioRpcError:
            assert kill_after is not None
    return durable


async def test_a_finished_stream_is_read_whole_and_called_complete(tmp_path: Path) -> None:
    data = random.Random(1).randbytes((1 << 20) + 5)
    async with a_log_server(tmp_path) as server:
        await append(server.port, a_piece(0, data))
        server.records.facts = StreamFacts(ended=True, final_end=len(data), attempt=3)

        *chunks, last = await read(server.port)

    assert b"".join(chunk.data for chunk in chunks) == data
    assert [chunk.offset for chunk in chunks] == [0, 1 << 20]
    assert last == jobs_pb2.LogChunk(offset=len(data), state=jobs_pb2.LOG_STATE_COMPLETE, attempt=3)


async def test_a_part_is_read_by_offset_and_limit(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        await append(server.port, a_piece(0, b"0123456789"))

        parts = [
            await read(server.port, offset=2, limit=3),
            await read(server.port, offset=-3),
            await read(server.port, offset=-99, limit=1),
            await read(server.port, offset=99),
        ]

    assert [[(chunk.offset, chunk.data) for chunk in part] for part in parts] == [
        [(2, b"234"), (5, b"")],
        [(7, b"789"), (10, b"")],
        [(0, b"0"), (1, b"")],
        [(99, b"")],
    ]
    assert {part[-1].state for part in parts} == {jobs_pb2.LOG_STATE_STREAMING}


async def test_a_gap_is_told_in_its_place_and_makes_the_stream_partial(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        await append(server.port, a_piece(0, b"abc"), a_lost_piece(3, 4), a_piece(7, b"xyz"))
        server.records.facts = StreamFacts(ended=True, final_end=10, attempt=1)

        chunks = await read(server.port, limit=5)

    assert chunks == [
        jobs_pb2.LogChunk(offset=0, data=b"abc"),
        jobs_pb2.LogChunk(offset=3, gap_bytes=4, gap_reason="spool full"),
        jobs_pb2.LogChunk(offset=7, data=b"xy"),
        jobs_pb2.LogChunk(offset=9, state=jobs_pb2.LOG_STATE_PARTIAL, attempt=1),
    ]


async def test_a_follower_gets_bytes_as_they_come_and_the_end_when_it_is_known(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server, a_channel(server.port) as channel:
        await append(server.port, a_piece(0, b"abc"))
        call = jobs_pb2_grpc.JobServiceStub(channel).ReadLog(jobs_pb2.ReadLogRequest(follow=True))
        first: Any = await call.read()
        await append(server.port, a_piece(3, b"def"))
        second: Any = await call.read()
        server.records.facts = StreamFacts(ended=True, final_end=9, attempt=1)
        server.signals.notify(a_key())
        await append(server.port, a_piece(6, b"ghi"))
        third: Any = await call.read()
        last = await call.read()

    assert [(chunk.offset, chunk.data) for chunk in (first, second, third)] == [
        (0, b"abc"),
        (3, b"def"),
        (6, b"ghi"),
    ]
    assert last == jobs_pb2.LogChunk(offset=9, state=jobs_pb2.LOG_STATE_COMPLETE, attempt=1)


async def test_a_follower_ends_when_the_rest_will_never_come(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server, a_channel(server.port) as channel:
        await append(server.port, a_piece(0, b"abc"))
        call = jobs_pb2_grpc.JobServiceStub(channel).ReadLog(jobs_pb2.ReadLogRequest(follow=True))
        await call.read()
        server.records.facts = StreamFacts(ended=True, final_end=9, attempt=1, is_given_up=True)
        server.signals.notify(a_key())

        gap: Any = await call.read()
        last: Any = await call.read()

    assert (gap.offset, gap.gap_bytes, gap.gap_reason) == (3, 6, "the node that ran it has it no more")
    assert (last.offset, last.state) == (9, jobs_pb2.LOG_STATE_PARTIAL)


async def test_a_follower_looks_by_itself_when_no_signal_comes(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server, a_channel(server.port) as channel:
        call = jobs_pb2_grpc.JobServiceStub(channel).ReadLog(jobs_pb2.ReadLogRequest(follow=True))
        await until(lambda: _watched(server))
        server.records.facts = StreamFacts(ended=True, final_end=None, attempt=1)

        last: Any = await call.read()

    assert last.state == jobs_pb2.LOG_STATE_PARTIAL


def _watched(server: LogServer) -> bool:
    return server.signals.watcher_count > 0


async def test_a_follower_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async with a_log_server(tmp_path) as server:
        async with a_channel(server.port) as channel:
            call = jobs_pb2_grpc.JobServiceStub(channel).ReadLog(jobs_pb2.ReadLogRequest(follow=True))
            waiting = asyncio.ensure_future(call.read())
            await until(lambda: _watched(server))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await until(lambda: not _watched(server))
