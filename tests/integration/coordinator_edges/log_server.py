"""A server with the coordinator's log intake, log tail and file store, and nothing else; also a program.

As a program (`python log_server.py DIRECTORY`) it prints its port and serves until it is killed.
"""

# ruff: noqa: N802  (servicers carry the names of the contract)

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from windlass_coordinator.logstore import open_log_store
from windlass_coordinator.logstore.base import LogStore, StreamKey
from windlass_coordinator.rpc.append_log import IntakeLimits, LogIntake
from windlass_coordinator.rpc.read_log import LogSignals, LogTail, StreamFacts
from windlass_proto.model.ids import AttemptRef, JobId, TaskKey
from windlass_proto.model.states import LogStream
from windlass_proto.v1 import agent_pb2, agent_pb2_grpc, jobs_pb2, jobs_pb2_grpc

JOB = JobId("job-1")
OPEN = StreamFacts(ended=False, final_end=None, attempt=1)


def a_key(index: int = 0) -> StreamKey:
    return StreamKey(job_id=JOB, task_key=TaskKey(1), index=index, attempt=1, stream=LogStream.STDOUT)


@dataclass
class Records:
    """What a coordinator's store would say, set by the test."""

    fence: int = 1
    facts: StreamFacts = OPEN
    asked: list[AttemptRef] = field(default_factory=list)

    async def admit(self, refs: Sequence[AttemptRef]) -> list[JobId | None]:
        self.asked += refs
        return [JOB if ref.fence == self.fence else None for ref in refs]

    async def stream_facts(self) -> StreamFacts:
        return self.facts


class Agents(agent_pb2_grpc.AgentServiceServicer):
    """AppendLog alone."""

    intake: LogIntake
    records: Records

    async def AppendLog(
        self, requests: AsyncIterator[agent_pb2.AppendLogRequest], context: Any
    ) -> AsyncIterator[agent_pb2.AppendLogReply]:
        async for reply in self.intake.append(requests, admit=self.records.admit):
            yield reply


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    """ReadLog alone."""

    tail: LogTail
    records: Records

    async def ReadLog(
        self, request: jobs_pb2.ReadLogRequest, context: Any
    ) -> AsyncIterator[jobs_pb2.LogChunk]:
        async for chunk in self.tail.read(
            a_key(request.index),
            offset=request.offset,
            limit=request.limit,
            follow=request.follow,
            facts=self.records.stream_facts,
        ):
            yield chunk


@dataclass
class LogServer:
    """A running server."""

    port: int
    store: LogStore
    records: Records
    signals: LogSignals


@asynccontextmanager
async def a_log_server(directory: Path, *, limits: IntakeLimits | None = None) -> AsyncIterator[LogServer]:
    store, signals, records = open_log_store(directory), LogSignals(), Records()
    async with LogIntake(store, on_appended=signals.notify, limits=limits) as intake:
        agents, jobs = Agents(), Jobs()  # type: ignore[abstract]  # the others answer UNIMPLEMENTED
        agents.intake, agents.records = intake, records
        jobs.tail, jobs.records = LogTail(store, signals), records
        server = grpc.aio.server()
        agent_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
        jobs_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield LogServer(port=port, store=store, records=records, signals=signals)
        finally:
            await server.stop(None)
    store.close()


async def _main() -> None:
    async with a_log_server(Path(sys.argv[1])) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
