"""Thousands of idle agents in one process: each with its own connection, session, heartbeat and parked poll.

They keep to what they are told as real agents do: the interval with its jitter, the back-off after a refusal,
the inventory when they come back. An instance of a task called `hold` is kept until told otherwise; any other
ends at once. Talks over its standard streams, one line each way; lines that begin with `work` come by
themselves.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from google.protobuf.message import Message

from benchmarks.fleet_wire import Connection, Done, pushback_s
from windlass_agent.core.backoff import Backoff
from windlass_coordinator.vitals import allow_many_files
from windlass_proto.v1 import agent_pb2 as wire

_SERVICE = b"/windlass.v1.AgentService/"
_BACKOFF = Backoff()
_JITTER = 0.2
_TIMEOUT_S = 30
_CONNECTING_AT_ONCE = 64
"""Of one process; the machine's queue of new connections is not what is measured."""
HELD_TASK = "hold"


class Fleet:
    """All agents of this process, and what is told of them."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.loop = asyncio.get_running_loop()
        self.gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        self.tasks: set[asyncio.Task[None]] = set()
        self.parked = 0
        self.sessions = 0
        self.refused = 0
        self.wanted_sessions = 0
        """So many have been opened when every agent has one that is newer than the mark."""
        self.changed = asyncio.Event()

    def say(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    async def all_parked(self, count: int) -> None:
        while self.parked < count or self.sessions < self.wanted_sessions:
            self.changed.clear()
            await self.changed.wait()


class Agent:
    """One simulated agent: callbacks and timers, no task of its own."""

    __slots__ = (
        "_connection",
        "_credential",
        "_failures",
        "_fleet",
        "_heartbeat",
        "_held",
        "_interval_s",
        "_is_parked",
        "_node_id",
        "_nonce",
        "_number",
        "_retry",
        "_seq",
        "_session",
    )

    def __init__(self, fleet: Fleet, number: int, node_id: str, credential: str) -> None:
        self._fleet, self._number = fleet, number
        self._node_id, self._credential = node_id, credential
        self._nonce = ""
        self._session: wire.SessionRef | None = None
        self._connection: Connection | None = None
        self._held: list[wire.AttemptRef] = []
        self._seq = 0
        self._failures = 0
        self._interval_s = 5.0
        self._is_parked = False
        self._heartbeat: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

    def connect(self) -> None:
        self._retry = None
        task = self._fleet.loop.create_task(self._connect())
        self._fleet.tasks.add(task)
        task.add_done_callback(self._fleet.tasks.discard)

    async def _connect(self) -> None:
        fleet = self._fleet
        connection = Connection(
            authority=f"{fleet.host}:{fleet.port}",
            credential=self._credential,
            ready=self._open,
            gone=self._gone,
        )
        self._connection = connection
        async with fleet.gate:
            try:
                await fleet.loop.create_connection(lambda: connection, fleet.host, fleet.port)
            except OSError:
                self._later(self.connect)

    def _gone(self) -> None:
        self._leave_session()
        self._later(self.connect)

    def _leave_session(self) -> None:
        self._session = None
        self._set_parked(is_parked=False)
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def _set_parked(self, *, is_parked: bool) -> None:
        if is_parked != self._is_parked:
            self._is_parked = is_parked
            self._fleet.parked += 1 if is_parked else -1
            self._fleet.changed.set()

    def _later(self, what: Callable[[], None], trailers: bytes = b"") -> None:
        """As the real agent: full jitter, and not before the coordinator wants it."""
        self._failures += 1
        jitter = random.random()
        pause_s = max(
            _BACKOFF.delay(self._failures, jitter=jitter).total_seconds(), pushback_s(trailers) * (1 + jitter)
        )
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._fleet.loop.call_later(pause_s, what)

    def _call(self, method: bytes, request: Message, done: Done, *, timeout_s: int = _TIMEOUT_S) -> None:
        if self._connection is not None:
            self._connection.call(_SERVICE + method, request.SerializeToString(), done, timeout_s=timeout_s)

    def _open(self) -> None:
        self._retry = None
        request = wire.OpenSessionRequest(
            node_id=self._node_id,
            state_id=self._node_id,
            boot_id="boot",
            last_nonce=self._nonce,
            protocol_version=1,
            facts=wire.NodeFacts(name=f"n{self._number}", slots=1, cpu=1, memory_bytes=1 << 30),
            inventory=[
                wire.InventoryItem(ref=ref, phase=wire.ATTEMPT_PHASE_RUNNING, seq=2) for ref in self._held
            ],
        )
        self._call(b"OpenSession", request, self._opened)

    def _opened(self, reply: bytes | None, trailers: bytes) -> None:
        if reply is None:
            self._fleet.refused += 1
            self._later(self._open, trailers)
            return
        opened = wire.OpenSessionReply.FromString(reply)
        kept = [item.ref for item in opened.verdicts if item.verdict != wire.INVENTORY_VERDICT_KILL]
        self._held = kept
        self._nonce, self._failures, self._seq = opened.nonce, 0, 0
        self._session = wire.SessionRef(
            node_id=self._node_id, node_epoch=opened.node_epoch, nonce=opened.nonce
        )
        self._fleet.sessions += 1
        self._interval_s = opened.timing.heartbeat_interval.ToTimedelta().total_seconds()
        self._beat_later()
        self._poll()

    def _beat_later(self) -> None:
        pause_s = self._interval_s * (1 - _JITTER + 2 * _JITTER * random.random())
        self._heartbeat = self._fleet.loop.call_later(pause_s, self._beat)

    def _beat(self) -> None:
        if self._session is not None:
            self._call(b"Heartbeat", wire.HeartbeatRequest(session=self._session), self._beaten)

    def _beaten(self, reply: bytes | None, trailers: bytes) -> None:
        if self._session is None:
            return
        if reply is not None:
            timing = wire.HeartbeatReply.FromString(reply).timing
            self._interval_s = timing.heartbeat_interval.ToTimedelta().total_seconds()
        elif b"SESSION_LOST" in trailers:
            self._lose_session(trailers)
            return
        self._beat_later()

    def _lose_session(self, trailers: bytes) -> None:
        self._leave_session()
        self._later(self._open, trailers)

    def _poll(self) -> None:
        self._retry = None
        if self._session is None:
            return
        self._seq += 1
        want = 0 if self._held else 1
        request = wire.PollRequest(session=self._session, poll_seq=self._seq, want=want)
        request.wait.FromTimedelta(timedelta(seconds=_TIMEOUT_S))
        self._set_parked(is_parked=True)
        self._call(b"Poll", request, self._polled, timeout_s=2 * _TIMEOUT_S)

    def _polled(self, reply: bytes | None, trailers: bytes) -> None:
        now_ns = time.monotonic_ns()
        if self._session is None:
            return
        if reply is None:
            if b"SESSION_LOST" in trailers:
                self._lose_session(trailers)
            else:
                self._seq -= 1
                self._later(self._poll, trailers)
            return
        if not reply:
            self._poll()
            return
        polled = wire.PollReply.FromString(reply)
        for batch in polled.batches:
            self._work(batch, now_ns)
        if polled.go_away:
            self._later(self._poll)
        else:
            self._poll()

    def _work(self, batch: wire.AssignmentBatch, now_ns: int) -> None:
        for index, attempt, fence in zip(batch.index, batch.attempt, batch.fence, strict=True):
            ref = wire.AttemptRef(task_key=batch.task_key, index=index, attempt=attempt, fence=fence)
            if batch.task_name == HELD_TASK:
                self._held.append(ref)
                self._report(ref, wire.AttemptEvent(seq=2, started=wire.Started()))
            else:
                self._fleet.say(f"work {now_ns} {batch.job_id}")
                self._report(ref, wire.AttemptEvent(seq=3, exited=wire.Exited(code=0)))

    def _report(self, ref: wire.AttemptRef, event: wire.AttemptEvent) -> None:
        event.index, event.attempt, event.fence = ref.index, ref.attempt, ref.fence
        tasks = [wire.TaskEvents(task_key=ref.task_key, events=[event])]
        self._call(b"Report", wire.ReportRequest(session=self._session, tasks=tasks), _nothing)

    def finish(self) -> int:
        """Ends what is held; how much it was."""
        held, self._held = self._held, []
        for ref in held:
            self._report(ref, wire.AttemptEvent(seq=3, exited=wire.Exited(code=0)))
        return len(held)


def _nothing(reply: bytes | None, trailers: bytes) -> None:
    """An answer that changes nothing here."""


async def _serve(address: str, identities: Path, share: int, of: int) -> None:
    host, _, port = address.rpartition(":")
    fleet = Fleet(host, int(port))
    lines = deque(identities.read_text().splitlines()[share::of])
    agents: list[Agent] = []
    reader = asyncio.StreamReader()
    await fleet.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        match line:
            case ["connect", count]:
                new = list(_begin(fleet, lines, len(agents), int(count) - len(agents)))
                agents += new
                await fleet.all_parked(len(agents))
                fleet.say(f"parked {time.monotonic_ns()}")
            case ["parked"]:
                await fleet.all_parked(len(agents))
                fleet.say(f"parked {time.monotonic_ns()}")
            case ["mark"]:
                fleet.wanted_sessions = fleet.sessions + len(agents)
                fleet.say("marked")
            case ["finish"]:
                fleet.say(f"finished {sum(agent.finish() for agent in agents)}")
            case ["tell"]:
                fleet.say(f"told {fleet.parked} {fleet.sessions} {fleet.refused}")


def _begin(fleet: Fleet, lines: deque[str], known: int, count: int) -> Iterable[Agent]:
    for number in range(known, known + count):
        node_id, credential = json.loads(lines.popleft())
        agent = Agent(fleet, number, node_id, credential)
        agent.connect()
        yield agent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--identities", required=True, type=Path)
    parser.add_argument("--share", type=int, required=True)
    parser.add_argument("--of", type=int, required=True)
    given = parser.parse_args()
    allow_many_files()
    asyncio.run(_serve(given.coordinator, given.identities, given.share, given.of))


if __name__ == "__main__":
    main()
