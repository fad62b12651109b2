"""An agent of the protocol alone: takes what it can hold and reports it ended, and starts no process.

It measures what the coordinator can do. Polls and reports overlap, as in a real agent: while one half of what
it may hold is being reported, the other half is asked for. Talks over its standard streams: a line "go"
makes it work until a poll comes back empty, then it answers how many it has done.
"""

import argparse
import asyncio
import sys
from datetime import timedelta

import grpc.aio

from windlass_proto import convert
from windlass_proto.model.status import NodeFacts
from windlass_proto.v1 import agent_pb2 as wire
from windlass_proto.v1 import agent_pb2_grpc

_IDLE_AFTER = timedelta(seconds=1)
"""A poll that found nothing for this long means that the work is done."""
_TIMEOUT_S = 30.0
_REPORTS_UNDER_WAY = 2
"""More than this and polls would starve behind reports."""


class NullAgent:
    def __init__(self, channel: grpc.aio.Channel, *, name: str, cap: int) -> None:
        self._calls: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(channel)
        self._name, self._cap = name, cap
        self._facts = convert.node_facts_to_wire(
            NodeFacts(
                name=name,
                slots=cap,
                cpu=float(cap),
                memory_bytes=1 << 40,
                agent_version="null",
                os="",
                containment="",
            )
        )
        self._node = wire.JoinReply()
        self._session = wire.SessionRef()
        self._nonce = ""
        self._seq = 0
        self._held = 0
        self._room = asyncio.Event()

    async def join(self, token: str) -> None:
        self._node = await self._calls.Join(
            wire.JoinRequest(token=token, facts=self._facts), timeout=_TIMEOUT_S
        )

    async def work(self) -> int:
        """A new session, because the one before may have run out while nothing was to do."""
        opened = await self._calls.OpenSession(
            wire.OpenSessionRequest(
                node_id=self._node.node_id,
                state_id=self._name,
                boot_id="boot",
                last_nonce=self._nonce,
                protocol_version=1,
                facts=self._facts,
            ),
            timeout=_TIMEOUT_S,
            metadata=self._credential(),
        )
        self._nonce = opened.nonce
        self._session = wire.SessionRef(
            node_id=self._node.node_id, node_epoch=opened.node_epoch, nonce=opened.nonce
        )
        self._seq, done = 0, 0
        under_way = asyncio.Semaphore(_REPORTS_UNDER_WAY)
        async with asyncio.TaskGroup() as reports:
            while batches := await self._poll():
                request, count = _all_succeeded(self._session, batches)
                done += count
                self._held += count
                await under_way.acquire()
                reports.create_task(self._report(request, count, under_way))
        return done

    async def _poll(self) -> list[wire.AssignmentBatch]:
        while self._held > self._cap // 2:
            self._room.clear()
            await self._room.wait()
        self._seq += 1
        request = wire.PollRequest(
            session=self._session,
            poll_seq=self._seq,
            want=self._cap - self._held,
            wait=convert.duration_to_wire(_IDLE_AFTER),
        )
        reply = await self._calls.Poll(request, timeout=_TIMEOUT_S, metadata=self._credential())
        return list(reply.batches)

    async def _report(self, request: wire.ReportRequest, count: int, under_way: asyncio.Semaphore) -> None:
        reply = await self._calls.Report(request, timeout=_TIMEOUT_S, metadata=self._credential())
        refused = [verdict for verdict in reply.verdicts if verdict != wire.EVENT_VERDICT_ACCEPTED]
        if refused:
            raise RuntimeError(f"{len(refused)} results of {count} were refused, the first with {refused[0]}")
        self._held -= count
        self._room.set()
        under_way.release()

    def _credential(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._node.credential}"),)


def _all_succeeded(
    session: wire.SessionRef, batches: list[wire.AssignmentBatch]
) -> tuple[wire.ReportRequest, int]:
    exited = wire.Exited(code=0, ran_for_us=500)
    request = wire.ReportRequest(session=session)
    for batch in batches:
        events = request.tasks.add(task_key=batch.task_key).events
        for index, attempt, fence in zip(batch.index, batch.attempt, batch.fence, strict=True):
            events.add(index=index, attempt=attempt, fence=fence, seq=1, exited=exited)
    return request, sum(len(batch.index) for batch in batches)


async def _serve(arguments: argparse.Namespace) -> None:
    async with grpc.aio.insecure_channel(arguments.coordinator) as channel:
        agent = NullAgent(channel, name=arguments.name, cap=arguments.cap)
        await agent.join(sys.stdin.readline().strip())
        print("joined", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(await agent.work(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null_agent")
    parser.add_argument("--coordinator", metavar="HOST:PORT", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--cap", type=int, default=512, help="most attempts in hand")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
