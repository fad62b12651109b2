"""The server side of ReadLog: what is stored of one stream, and what comes while somebody follows it.

A follower is woken by LogSignals when something was stored or the attempt ended; because a signal may be lost
(another coordinator took the bytes in), it also looks by itself: once a second, less often with many others.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from windlass_coordinator.logstore.base import MAX_READ_BYTES, Gap, LogStore, StreamKey
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import LogState
from windlass_proto.v1 import jobs_pb2
from windlass_proto.v1.jobs_pb2 import LogChunk

NOT_THERE = "the node that ran it has it no more"
"""Why bytes are missing that a node had and has not sent."""
_MAX_WATCHERS = 20_000
_LOOK_EVERY = timedelta(seconds=1)
_LOOKS_PER_S = 500
"""Of all followers together; each look is a question to the database."""
_WIRE_STATES = {
    LogState.STREAMING: jobs_pb2.LOG_STATE_STREAMING,
    LogState.COMPLETE: jobs_pb2.LOG_STATE_COMPLETE,
    LogState.PARTIAL: jobs_pb2.LOG_STATE_PARTIAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """What the records say about the attempt that a stream belongs to."""

    ended: bool
    """The attempt is terminal."""
    final_end: int | None
    """Bytes the command produced, from its exit record; None = no exit record."""
    attempt: int
    is_given_up: bool = False
    """Nothing more will be sent: its node is gone, or has come back without it."""
    is_lost: bool = False
    """Nobody knows whether the command wrote more than its node has."""


Facts = Callable[[], Awaitable[StreamFacts]]


def stream_state(facts: StreamFacts, *, durable_end: int, has_gaps: bool) -> LogState:
    """Whether everything the command wrote is stored, and if not, whether more may come."""
    if not facts.ended:
        return LogState.STREAMING
    if facts.final_end is None:
        return LogState.PARTIAL
    if durable_end >= facts.final_end:
        return LogState.PARTIAL if has_gaps or facts.is_lost else LogState.COMPLETE
    return LogState.PARTIAL if facts.is_given_up else LogState.STREAMING


class LogSignals:
    """Wakes those who follow a stream; only the event loop's thread touches it."""

    def __init__(self, *, max_watchers: int = _MAX_WATCHERS) -> None:
        self._max_watchers = max_watchers
        self._watchers: dict[StreamKey, set[asyncio.Event]] = {}
        self.watcher_count = 0

    def notify(self, key: StreamKey) -> None:
        """Something about this stream has changed: bytes were stored, or its attempt has ended."""
        for event in self._watchers.get(key, ()):
            event.set()

    def notify_jobs(self, jobs: Collection[JobId]) -> None:
        """Attempts of these jobs may have ended: whoever follows one looks again."""
        for key, watchers in self._watchers.items():
            if key.job_id in jobs:
                for event in watchers:
                    event.set()

    @contextmanager
    def watching(self, key: StreamKey) -> Iterator[asyncio.Event]:
        """An event that is set at each change; with too many watchers one that never is."""
        event = asyncio.Event()
        if self.watcher_count >= self._max_watchers:
            yield event
            return
        watchers = self._watchers.setdefault(key, set())
        watchers.add(event)
        self.watcher_count += 1
        try:
            yield event
        finally:
            self.watcher_count -= 1
            watchers.discard(event)
            if not watchers:
                self._watchers.pop(key, None)


class LogTail:
    """Reads streams for users."""

    def __init__(self, store: LogStore, signals: LogSignals) -> None:
        self._store = store
        self._signals = signals

    async def read(
        self, key: StreamKey, *, offset: int, limit: int, follow: bool, facts: Facts
    ) -> AsyncGenerator[LogChunk, None]:
        """Chunks from `offset` (negative: counted from the end of what is stored), at most `limit` bytes (0:
        all).

        The last chunk carries the state of the stream and no data.
        """
        position = offset if offset >= 0 else max(0, await self._durable_end(key) + offset)
        remaining = limit or None
        with self._signals.watching(key) as changed:
            while True:
                changed.clear()
                now = await facts()
                state = await self._state(key, now)
                async for chunk in self._stored(key, position, remaining):
                    position = chunk.offset + len(chunk.data) + chunk.gap_bytes
                    remaining = remaining - len(chunk.data) if remaining is not None else None
                    yield chunk
                if not follow or remaining == 0 or state is not LogState.STREAMING:
                    break
                await _wait(changed, self._signals.watcher_count)
        if remaining != 0 and _is_cut_off(now, position):
            missing = (now.final_end or 0) - position
            yield LogChunk(offset=position, gap_bytes=missing, gap_reason=NOT_THERE)
            position += missing
        yield LogChunk(offset=position, state=_WIRE_STATES[state], attempt=now.attempt)

    async def _stored(
        self, key: StreamKey, position: int, remaining: int | None
    ) -> AsyncGenerator[LogChunk, None]:
        """What is stored from `position` on, now."""
        while remaining is None or remaining > 0:
            limit = MAX_READ_BYTES if remaining is None else min(remaining, MAX_READ_BYTES)
            found = await asyncio.to_thread(self._store.read, key, offset=position, limit=limit)
            if isinstance(found, Gap):
                yield LogChunk(offset=found.offset, gap_bytes=found.length, gap_reason=found.reason)
                position = found.end
                continue
            if not found.data:
                return
            yield LogChunk(offset=found.offset, data=found.data)
            position += len(found.data)
            remaining = remaining - len(found.data) if remaining is not None else None

    async def _state(self, key: StreamKey, facts: StreamFacts) -> LogState:
        if not facts.ended:
            return LogState.STREAMING
        durable_end = await self._durable_end(key)
        has_gaps = bool(await asyncio.to_thread(self._store.gaps, key))
        return stream_state(facts, durable_end=durable_end, has_gaps=has_gaps)

    async def _durable_end(self, key: StreamKey) -> int:
        return await asyncio.to_thread(self._store.durable_end, key)


def _is_cut_off(facts: StreamFacts, position: int) -> bool:
    """Whether what comes after `position` was written and will never be stored. Said and not written down: a
    node that is gone may still turn up with it."""
    return facts.ended and facts.is_given_up and facts.final_end is not None and position < facts.final_end


async def _wait(changed: asyncio.Event, followers: int) -> None:
    try:
        async with asyncio.timeout(max(_LOOK_EVERY.total_seconds(), followers / _LOOKS_PER_S)):
            await changed.wait()
    except TimeoutError:
        return
