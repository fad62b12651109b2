"""Thousands of idle agents in one process: each with its own connection, session, heartbeat and parked poll.

They keep to what they are told as real agents do: the interval with its jitter, the back-off after a refusal,
the inventory when they come back. An instance of a task called `hold` is kept until told otherwise; any other
ends at once. Talks over its standard streams, one line each way; lines that begin with `work` come by
themselves.
"""

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from google.protobuf.message import Message

from benchmarks.fleet_channel import OUT_OF_REACH, Channel
from benchmarks.fleet_wire import Done, pushback_s
from windlass_agent.core.backoff import Backoff
from windlass_agent.core.quiet import QuietState, may_leave_out
from windlass_agent.settings import LinkSettings
from windlass_coordinator.vitals import allow_many_files
from windlass_proto import convert
from windlass_proto.model.assignments import Timing
from windlass_proto.v1 import agent_pb2 as wire

_SERVICE = b"/windlass.v1.AgentService/"
_SESSION_LOST = b"SESSION_LOST"
_BACKOFF = Backoff(base=LinkSettings().retry_base, ceiling=LinkSettings().retry_ceiling)
_TIMEOUT_S = int(LinkSettings().call_timeout.total_seconds())
_JITTER = 0.2
_CONNECTING_AT_ONCE = 64
"""Of one process; the machine's queue of new connections is not what is measured."""
HELD_TASK = "hold"


class Fleet:
    """All agents of this process, and what is told of them."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.loop = asyncio.get_running_loop()
        self.gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
        self.parked = 0
        self.sessions = 0
        self.refused = 0
        self.changed = asyncio.Event()

    def say(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    async def all_parked(self, count: int) -> None:
        while self.parked < count:
            self.changed.clear()
            await self.changed.wait()


class Agent:
    """One simulated agent: callbacks and timers, no task of its own."""

    __slots__ = (
        "_answered_at_s",
        "_channel",
        "_failures",
        "_fleet",
        "_has_beaten",
        "_heartbeat",
        "_held",
        "_is_parked",
        "_leased_until_s",
        "_node_id",
        "_nonce",
        "_number",
        "_retry",
        "_sent_at_s",
        "_seq",
        "_session",
        "_timing",
    )

    def __init__(self, fleet: Fleet, number: int, node_id: str, credential: str) -> None:
        self._fleet, self._number = fleet, number
        self._node_id = node_id
        self._channel = Channel(fleet.host, fleet.port, credential=credential, gate=fleet.gate)
        self._nonce = ""
        self._session: wire.SessionRef | None = None
        self._held: list[wire.AttemptRef] = []
        self._seq = 0
        self._failures = 0
        self._timing: Timing | None = None
        self._is_parked = self._has_beaten = False
        self._sent_at_s = self._leased_until_s = self._answered_at_s = 0.0
        self._heartbeat: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

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
        """As the real agent: full jitter, over the time that a whole fleet takes to come back, and not before
        the coordinator wants it."""
        self._failures += 1
        jitter, pushback = random.random(), pushback_s(trailers)
        backoff = _BACKOFF
        if self._timing is not None and trailers == OUT_OF_REACH:
            backoff = backoff.within(self._timing.reconnect_within)
        pause_s = backoff.delay(self._failures, jitter=jitter).total_seconds()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._fleet.loop.call_later(max(pause_s, pushback * (1 + jitter)), what)

    def _call(self, method: bytes, request: Message, done: Done, *, timeout_s: int = _TIMEOUT_S) -> None:
        self._channel.call(_SERVICE + method, request.SerializeToString(), done, timeout_s=timeout_s)

    # Sessions

    def open(self) -> None:
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
        sent_at_s = time.monotonic()
        self._call(b"OpenSession", request, lambda reply, trailers: self._opened(sent_at_s, reply, trailers))

    def _opened(self, sent_at_s: float, reply: bytes | None, trailers: bytes) -> None:
        if reply is None:
            self._fleet.refused += 1
            self._later(self.open, trailers)
            return
        opened = wire.OpenSessionReply.FromString(reply)
        kept = [item.ref for item in opened.verdicts if item.verdict != wire.INVENTORY_VERDICT_KILL]
        self._held = kept
        self._nonce, self._failures, self._seq = opened.nonce, 0, 0
        self._session = wire.SessionRef(
            node_id=self._node_id, node_epoch=opened.node_epoch, nonce=opened.nonce
        )
        self._has_beaten = False
        self._fleet.sessions += 1
        self._renewed(sent_at_s, opened.timing)
        self._beat_later()
        self._next_poll()

    def _renewed(self, sent_at_s: float, timing: wire.Timing) -> None:
        self._timing = convert.timing_from_wire(timing)
        self._leased_until_s = max(self._leased_until_s, sent_at_s + self._timing.lease.total_seconds())

    def _lose_session(self) -> None:
        self._leave_session()
        self._later(self.open)

    # Heartbeats

    def _beat_later(self) -> None:
        assert self._timing is not None
        interval_s = self._timing.heartbeat_interval.total_seconds()
        self._look_later(interval_s * (1 - _JITTER + 2 * _JITTER * random.random()))

    def _look_later(self, pause_s: float) -> None:
        self._heartbeat = self._fleet.loop.call_later(pause_s, self._beat_if_due, pause_s)

    def _beat_if_due(self, pause_s: float) -> None:
        if self._session is None or self._timing is None:
            return
        now_s = time.monotonic()
        state = QuietState(
            timing=self._timing.quiet,
            is_empty=not self._held,
            is_answered=True,
            is_leased=now_s < self._leased_until_s,
            has_news=not self._has_beaten,
            silent_for_s=now_s - self._answered_at_s,
        )
        if may_leave_out(state):
            self._look_later(pause_s)
        else:
            request = wire.HeartbeatRequest(session=self._session)
            self._call(b"Heartbeat", request, lambda reply, trailers: self._beaten(now_s, reply, trailers))

    def _beaten(self, sent_at_s: float, reply: bytes | None, trailers: bytes) -> None:
        if self._session is None:
            return
        if reply is not None:
            self._has_beaten, self._answered_at_s = True, time.monotonic()
            self._renewed(sent_at_s, wire.HeartbeatReply.FromString(reply).timing)
        elif _SESSION_LOST in trailers:
            self._lose_session()
            return
        self._beat_later()

    # Polls

    def _next_poll(self) -> None:
        self._seq += 1
        self._poll()

    def _poll(self) -> None:
        """The one of this number, perhaps again."""
        self._retry = None
        if self._session is None or self._timing is None:
            return
        want, quiet = (0 if self._held else 1), self._timing.quiet
        wait = self._timing.poll_wait if self._held or quiet is None else quiet.poll_wait
        request = wire.PollRequest(
            session=self._session, poll_seq=self._seq, want=want, is_empty=not self._held
        )
        request.wait.FromTimedelta(wait)
        self._set_parked(is_parked=True)
        self._sent_at_s = time.monotonic()
        self._call(b"Poll", request, self._polled, timeout_s=int(wait.total_seconds()) + _TIMEOUT_S)

    def _polled(self, reply: bytes | None, trailers: bytes) -> None:
        now_ns = time.monotonic_ns()
        if self._session is None:
            return
        if reply is None:
            self._set_parked(is_parked=False)
            if _SESSION_LOST in trailers:
                self._lose_session()
            else:
                self._later(self._poll, trailers)
            return
        self._failures = 0
        polled = wire.PollReply.FromString(reply)
        self._renew_by(polled)
        for batch in polled.batches:
            self._work(batch, now_ns)
        if polled.go_away:
            self._seq += 1
            self._later(self._poll)
        else:
            self._next_poll()

    def _renew_by(self, polled: wire.PollReply) -> None:
        assert self._timing is not None
        if polled.HasField("timing"):
            self._renewed(self._sent_at_s, polled.timing)
        else:
            until_s = self._sent_at_s + self._timing.lease.total_seconds()
            self._leased_until_s = max(self._leased_until_s, until_s)

    # Work

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
            case ["finish"]:
                fleet.say(f"finished {sum(agent.finish() for agent in agents)}")
            case ["tell"]:
                fleet.say(f"told {fleet.parked} {fleet.sessions} {fleet.refused}")


def _begin(fleet: Fleet, lines: deque[str], known: int, count: int) -> Iterable[Agent]:
    for number in range(known, known + count):
        node_id, credential = json.loads(lines.popleft())
        agent = Agent(fleet, number, node_id, credential)
        agent.open()
        yield agent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--identities", required=True, type=Path)
    parser.add_argument("--share", type=int, required=True)
    parser.add_argument("--of", type=int, required=True)
    given = parser.parse_args()
    allow_many_files()
    gc.disable()  # thousands of agents in one process would stand still for its sake
    asyncio.run(_serve(given.coordinator, given.identities, given.share, given.of))


if __name__ == "__main__":
    main()
