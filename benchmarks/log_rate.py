"""How fast one command's output goes into the coordinator's log store: real gRPC, real files, real syncs.

The server runs in a process of its own, with the log intake and the file store of the coordinator; this
process sends, as an agent does. Both processes' CPU is counted. By hand: `python -m benchmarks.log_rate`.
"""

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from windlass_coordinator.logstore import open_log_store
from windlass_coordinator.rpc.append_log import LogIntake
from windlass_proto.model.ids import AttemptRef, JobId
from windlass_proto.v1 import agent_pb2, agent_pb2_grpc, jobs_pb2

GIB = 1 << 30
METHOD = "/windlass.v1.AgentService/AppendLog"
_WINDOW_BYTES = 32 << 20
"""Sent and not yet answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRate:
    """Result of one measurement."""

    mb_per_s: float
    cpu_s_per_gib: float
    """Of sender and server together."""
    sender_cpu_s_per_gib: float
    server_cpu_s_per_gib: float


async def measure_log_rate(directory: Path, *, total_bytes: int = GIB, chunk_bytes: int = 1 << 20) -> LogRate:
    """Sends one stream of `total_bytes` into a log store under `directory`."""
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.log_rate",
        "--serve",
        str(directory),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        address = (await server.stdout.readline()).decode().strip()
        sender_cpu_before, started = _cpu_s(), time.monotonic()
        await _send(address, total_bytes=total_bytes, chunk_bytes=chunk_bytes)
        elapsed_s, sender_cpu_s = time.monotonic() - started, _cpu_s() - sender_cpu_before
        server.stdin.close()
        server_cpu_s = float(await server.stdout.readline())
    finally:
        if server.returncode is None and server.stdin is not None:
            server.stdin.close()
        await server.wait()
    gib = total_bytes / GIB
    return LogRate(
        mb_per_s=total_bytes / elapsed_s / 1e6,
        cpu_s_per_gib=(sender_cpu_s + server_cpu_s) / gib,
        sender_cpu_s_per_gib=sender_cpu_s / gib,
        server_cpu_s_per_gib=server_cpu_s / gib,
    )


async def _send(address: str, *, total_bytes: int, chunk_bytes: int) -> None:
    chunk = os.urandom(chunk_bytes)
    ref = agent_pb2.AttemptRef(task_key=1, index=0, attempt=1, fence=1)
    window = asyncio.Semaphore(_WINDOW_BYTES // chunk_bytes)

    async def requests() -> AsyncIterator[agent_pb2.AppendLogRequest]:
        for offset in range(0, total_bytes, chunk_bytes):
            await window.acquire()
            yield agent_pb2.AppendLogRequest(
                ref=ref,
                stream=jobs_pb2.LOG_STREAM_STDOUT,
                offset=offset,
                data=chunk,
                crc32=zlib.crc32(chunk),
            )

    async with grpc.aio.insecure_channel(address) as channel:
        end = 0
        async for reply in agent_pb2_grpc.AgentServiceStub(channel).AppendLog(requests()):
            window.release()
            end = reply.durable_end
    if end < total_bytes:
        raise RuntimeError(f"only {end} of {total_bytes} bytes were stored")


class _Appender(grpc.GenericRpcHandler):
    """Serves AppendLog alone."""

    def __init__(self, intake: LogIntake) -> None:
        self._intake = intake

    def service(
        self, details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[agent_pb2.AppendLogRequest, agent_pb2.AppendLogReply] | None":
        if details.method != METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._append,
            request_deserializer=agent_pb2.AppendLogRequest.FromString,
            response_serializer=_serialized,
        )

    async def _append(
        self, requests: AsyncIterator[agent_pb2.AppendLogRequest], context: object
    ) -> AsyncIterator[agent_pb2.AppendLogReply]:
        async for reply in self._intake.append(requests, admit=_admit):
            yield reply


def _serialized(reply: agent_pb2.AppendLogReply) -> bytes:
    return reply.SerializeToString()


async def _admit(refs: Sequence[AttemptRef]) -> list[JobId | None]:
    return [JobId("job-bench") for _ in refs]


async def _serve(directory: Path) -> None:
    store = open_log_store(directory)
    async with LogIntake(store, on_appended=lambda key: None) as intake:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Appender(intake),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        before = _cpu_s()
        print(f"127.0.0.1:{port}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(_cpu_s() - before, flush=True)
        await server.stop(None)
    store.close()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log_rate")
    parser.add_argument("--serve", metavar="DIR", type=Path)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--chunk-kib", type=int, default=1024)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(_serve(arguments.serve))
        return
    with tempfile.TemporaryDirectory() as directory:
        rate = asyncio.run(
            measure_log_rate(
                Path(directory),
                total_bytes=arguments.mib << 20,
                chunk_bytes=arguments.chunk_kib << 10,
            )
        )
    print(rate)


if __name__ == "__main__":
    main()
