"""The server side of AppendLog: requests are written as they arrive and answered when they are on disk.

One stream of requests is a pipeline of three: the event loop reads ahead, a worker thread writes and syncs,
and the replies go out in the order of the requests. A sync covers everything written since the one before
(protocol.md, order C4): it is due when little is coming, after 8 MiB, or after 100 ms. While the disk takes
nothing, the stream waits with what it has, and so does the agent.

Who may append, and to which job, is not decided here: see `admit`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import grpc
import structlog

from windlass_coordinator.logstore.base import (
    AppendOutcome,
    AppendVerdict,
    DiskRefused,
    LogStore,
    LogWriter,
    StreamKey,
)
from windlass_coordinator.rpc.read_ahead import Batch, Budget, ReadAhead
from windlass_proto import convert
from windlass_proto.errors import InvalidRequest, Overloaded, WindlassError
from windlass_proto.model.ids import AttemptRef, JobId
from windlass_proto.model.states import LogStream
from windlass_proto.v1 import agent_pb2, jobs_pb2
from windlass_proto.v1.agent_pb2 import AppendLogReply, AppendLogRequest

Admit = Callable[[Sequence[AttemptRef]], Awaitable[Sequence[JobId | None]]]
"""Says to which job each attempt belongs, or None when the asking node may not append to it."""

_STREAMS = {jobs_pb2.LOG_STREAM_STDOUT: LogStream.STDOUT, jobs_pb2.LOG_STREAM_STDERR: LogStream.STDERR}
_REMEMBERED_ADMISSIONS = 4096
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """How much the intake holds and how long it waits."""

    sync_bytes: int = 8 << 20
    """Written without a sync at most; a disk takes this in about 10 ms."""
    sync_interval: timedelta = timedelta(milliseconds=100)
    """Between two syncs of little; so written bytes wait for this long at most."""
    sync_requests: int = 512
    """The same by number: many short outputs are as many files, and each has a share in the sync."""
    write_bytes: int = 1 << 20
    """Written at one go while more is coming: going to a worker thread and back costs as much as copying
    this."""
    pause: timedelta = timedelta(milliseconds=5)
    """When less than that has come in this time, it is written."""
    read_ahead_bytes: int = 16 << 20
    """Received and not yet written, of one stream; two syncs' worth keeps the disk busy."""
    total_read_ahead_bytes: int = 256 << 20
    """The same of all streams together."""
    admission: timedelta = timedelta(seconds=5)
    """How long the answer to "may it append?" is believed."""
    threads: int = 8
    """Streams that write or sync at the same moment."""
    disk_pause: timedelta = timedelta(seconds=1)
    """Between two tries while the disk is full."""


class DiskQueue:
    """The streams that wait for a disk that takes nothing."""

    def __init__(self, *, why_full: Callable[[], str | None], pause: timedelta) -> None:
        """`why_full` says why nothing is to be written although it might still fit."""
        self.why_full = why_full
        self.pause_s = pause.total_seconds()
        self.waiting = 0
        self._is_told = False

    def took(self) -> None:
        """The disk has taken something."""
        if self._is_told and not self.waiting:
            self._is_told = False
            _log.info("log.goes_on")

    async def wait(self, reason: str) -> None:
        """For a moment; people hear once that streams wait, and once that they go on."""
        if not self._is_told:
            self._is_told = True
            _log.warning("log.waits_for_disk", reason=reason)
        self.waiting += 1
        try:
            await asyncio.sleep(self.pause_s)
        finally:
            self.waiting -= 1


class LogIntake:
    """Takes in the output of all agents; use it as an async context."""

    def __init__(
        self,
        store: LogStore,
        *,
        on_appended: Callable[[StreamKey], None],
        limits: IntakeLimits | None = None,
        why_full: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`on_appended` is called on the event loop for each stream that has grown, after the sync;
        `why_full` says why logs must leave what room there is to the database."""
        self._store = store
        self._on_appended = on_appended
        self._limits = limits or IntakeLimits()
        self.disk_queue = DiskQueue(why_full=why_full, pause=self._limits.disk_pause)
        self._budget = Budget(self._limits.total_read_ahead_bytes)
        self._threads = ThreadPoolExecutor(self._limits.threads, thread_name_prefix="log-intake")
        self._readers = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._readers.__aenter__()
        return self

    async def __aexit__(self, *failure: object) -> None:
        try:
            await self._readers.__aexit__(None, None, None)
        finally:
            await asyncio.to_thread(self._threads.shutdown)

    async def append(
        self, requests: AsyncIterator[AppendLogRequest], *, admit: Admit
    ) -> AsyncIterator[AppendLogReply]:
        """Serves one AppendLog call."""
        ahead = ReadAhead(limit_bytes=self._limits.read_ahead_bytes, budget=self._budget)
        reader = self._readers.create_task(_read(requests, ahead))
        intake = _StreamIntake(
            writer=self._store.open_writer(),
            admissions=_Admissions(admit, lifetime=self._limits.admission),
            threads=self._threads,
            limits=self._limits,
            disk_queue=self.disk_queue,
        )
        try:
            async with aclosing(intake.replies(ahead)) as groups:
                async for group in groups:
                    for key in group.grown:
                        self._on_appended(key)
                    for reply in group.replies:
                        yield reply
        finally:
            reader.cancel()
            ahead.drop()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Synced:
    """What one sync has put on disk."""

    replies: Sequence[AppendLogReply]
    grown: Sequence[StreamKey]


class _Admissions:
    """Remembers for a short while what `admit` said."""

    def __init__(self, admit: Admit, *, lifetime: timedelta) -> None:
        self._admit = admit
        self._lifetime_s = lifetime.total_seconds()
        self._known: OrderedDict[AttemptRef, tuple[float, JobId | None]] = OrderedDict()

    async def jobs_of(self, refs: Collection[AttemptRef]) -> dict[AttemptRef, JobId | None]:
        """Asks once for all that are not known."""
        now = asyncio.get_running_loop().time()
        jobs: dict[AttemptRef, JobId | None] = {}
        unknown: list[AttemptRef] = []
        for ref in dict.fromkeys(refs):
            known = self._known.get(ref)
            if known is not None and now < known[0]:
                jobs[ref] = known[1]
            else:
                unknown.append(ref)
        if unknown:
            for ref, job_id in zip(unknown, await self._admit(unknown), strict=True):
                jobs[ref] = job_id
                self._known[ref] = (now + self._lifetime_s, job_id)
                self._known.move_to_end(ref)
        while len(self._known) > _REMEMBERED_ADMISSIONS:
            self._known.popitem(last=False)
        return jobs


class _StreamIntake:
    """One AppendLog call: writes in the order of arrival, syncs in groups."""

    def __init__(
        self,
        *,
        writer: LogWriter,
        admissions: _Admissions,
        threads: ThreadPoolExecutor,
        limits: IntakeLimits,
        disk_queue: DiskQueue,
    ) -> None:
        self._disk_queue = disk_queue
        self._writer = writer
        self._admissions = admissions
        self._threads = threads
        self._limits = limits
        self._unsynced: list[AppendLogReply] = []
        self._unsynced_bytes = 0
        self._unsynced_since = 0.0
        self._synced_at = 0.0
        self._grown: dict[StreamKey, None] = {}

    async def replies(self, ahead: ReadAhead) -> AsyncGenerator[_Synced, None]:
        """Groups of replies, each when its bytes are on disk."""
        try:
            while self._unsynced or not ahead.is_exhausted:
                batch = await ahead.take(
                    least_bytes=self._limits.write_bytes,
                    most_bytes=self._limits.sync_bytes,
                    most_requests=self._limits.sync_requests,
                    pause=self._limits.pause,
                    patience=self._patience(),
                )
                if await self._write(batch):
                    yield self._answered()
        finally:
            self._writer.close()

    async def _write(self, batch: Batch) -> bool:
        """Writes a batch, which may be empty; whether everything written so far is on disk now."""
        keys = await self._keys(batch.requests)
        is_due = self._is_sync_due(batch)
        outcomes = await self._stored(list(zip(keys, batch.requests, strict=True)), is_due)
        for key, request, outcome in zip(keys, batch.requests, outcomes, strict=True):
            self._unsynced.append(_reply(request, outcome))
            if key is not None and outcome is not None:
                self._note(key, request, outcome)
        return is_due

    async def _stored(
        self, work: "Sequence[tuple[StreamKey | None, AppendLogRequest]]", is_sync_due: bool
    ) -> "list[AppendOutcome | None]":
        """What became of each; tried until the disk takes it, as repeating an append is safe."""
        loop = asyncio.get_running_loop()
        while True:
            if work and (why := self._disk_queue.why_full()) is not None:
                await self._disk_queue.wait(why)
                continue
            try:
                stored = await loop.run_in_executor(self._threads, _store, self._writer, work, is_sync_due)
            except DiskRefused as refusal:
                await self._disk_queue.wait(str(refusal))
                continue
            self._disk_queue.took()
            return stored

    def _is_sync_due(self, batch: Batch) -> bool:
        now = asyncio.get_running_loop().time()
        if not self._unsynced:
            self._unsynced_since = now
        self._unsynced_bytes += batch.size_bytes
        is_full = (
            self._unsynced_bytes >= self._limits.sync_bytes
            or len(self._unsynced) + len(batch.requests) >= self._limits.sync_requests
        )
        interval_s = self._limits.sync_interval.total_seconds()
        has_paused = batch.size_bytes < self._limits.write_bytes
        # A lone line is synced at once; lines that keep trickling in share a sync, because each sync is a
        # commit of the file system, for which everybody on this disk waits.
        has_rested = now - self._synced_at >= interval_s
        is_due = is_full or (has_paused and has_rested) or now - self._unsynced_since >= interval_s
        if is_due:
            self._synced_at = now
        return is_due

    def _patience(self) -> timedelta | None:
        """How long to wait for more: what is written waits for its sync, whether or not more comes."""
        if not self._unsynced:
            return None
        now = asyncio.get_running_loop().time()
        until_rested = timedelta(seconds=self._synced_at - now) + self._limits.sync_interval
        return max(self._limits.pause, until_rested)

    async def _keys(self, requests: Sequence[AppendLogRequest]) -> list[StreamKey | None]:
        """The stream that each request appends to; None when that is refused."""
        refs = [convert.attempt_ref_from_wire(request.ref) for request in requests]
        jobs = await self._admitted(refs)
        return [_key(request, ref, jobs[ref]) for request, ref in zip(requests, refs, strict=True)]

    async def _admitted(self, refs: Sequence[AttemptRef]) -> dict[AttemptRef, JobId | None]:
        """The job of each, as soon as the database has time for logs."""
        while True:
            try:
                return await self._admissions.jobs_of(refs)
            except Overloaded as refusal:
                await asyncio.sleep(refusal.retry_after.total_seconds())

    def _note(self, key: StreamKey, request: AppendLogRequest, outcome: AppendOutcome) -> None:
        match outcome.verdict:
            case AppendVerdict.STORED:
                self._grown[key] = None
            case AppendVerdict.MISMATCH:
                self._grown[key] = None
                _log.warning("log.diverged", **_where(key), offset=request.offset, end=outcome.end)
            case AppendVerdict.CORRUPT:
                _log.warning("log.corrupted", **_where(key), offset=request.offset)
            case AppendVerdict.QUOTA:
                _log.debug("log.quota_reached", **_where(key), end=outcome.end)
            case AppendVerdict.DUPLICATE | AppendVerdict.AHEAD | AppendVerdict.GONE:
                pass

    def _answered(self) -> _Synced:
        synced = _Synced(replies=self._unsynced, grown=tuple(self._grown))
        self._unsynced, self._unsynced_bytes, self._grown = [], 0, {}
        return synced


def _key(request: AppendLogRequest, ref: AttemptRef, job_id: JobId | None) -> StreamKey | None:
    stream = _STREAMS.get(request.stream)
    if stream is None:
        raise InvalidRequest("an AppendLog request names neither stdout nor stderr: set `stream`")
    if job_id is None:
        return None
    return StreamKey(
        job_id=job_id, task_key=ref.task_key, index=ref.index, attempt=ref.attempt, stream=stream
    )


async def _read(requests: AsyncIterator[AppendLogRequest], ahead: ReadAhead) -> None:
    """Reads until the sender ends; what goes wrong on the way is told to the taker."""
    try:
        async for request in requests:
            await ahead.put(request)
    except (WindlassError, grpc.aio.BaseError) as error:
        ahead.end(error)
    else:
        ahead.end()


def _store(
    writer: LogWriter, work: Sequence[tuple[StreamKey | None, AppendLogRequest]], is_sync_due: bool
) -> list[AppendOutcome | None]:
    """Runs in a worker thread; safe to abandon and to repeat."""
    outcomes = [_append(writer, key, request) if key is not None else None for key, request in work]
    if is_sync_due:
        writer.sync()
    return outcomes


def _append(writer: LogWriter, key: StreamKey, request: AppendLogRequest) -> AppendOutcome:
    if request.gap_bytes:
        return writer.append_gap(
            key, offset=request.offset, length=request.gap_bytes, reason=request.gap_reason
        )
    return writer.append(key, offset=request.offset, data=request.data, crc32=request.crc32)


def _reply(request: AppendLogRequest, outcome: AppendOutcome | None) -> AppendLogReply:
    if outcome is None or outcome.verdict is AppendVerdict.GONE:
        return agent_pb2.AppendLogReply(ref=request.ref, stream=request.stream, revoked=True)
    return agent_pb2.AppendLogReply(
        ref=request.ref,
        stream=request.stream,
        durable_end=outcome.end,
        quota=outcome.verdict is AppendVerdict.QUOTA,
    )


def _where(key: StreamKey) -> dict[str, object]:
    return {
        "job": key.job_id,
        "task_key": key.task_key,
        "index": key.index,
        "attempt": key.attempt,
        "stream": key.stream.value,
    }
