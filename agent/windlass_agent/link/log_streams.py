"""The output of attempts that has to reach the coordinator, and what of it is sent next.

Reading happens in threads. Streams take turns, so that one that writes without end delays no other.
Thousands of short commands may wait for the coordinator's answers at once, so no step looks at all of them:
what has something to send stands in a queue, and only commands that still run are looked at.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from windlass_agent.core.log_offsets import SentPiece, StreamOffsets
from windlass_agent.spool.attempt_dir import SEGMENT_BYTES, OutputSpool
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import LogStream

_PIECES_AT_ONCE = 128
"""Read by one thread: going to a thread and back costs more than reading a short output."""

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class ShippedStream:
    ref: AttemptRef
    stream: LogStream
    spool: OutputSpool
    offsets: StreamOffsets
    released: int = 0
    """Whatever lies below in the spool has been deleted, as far as whole segments go."""
    lies_here: int = 0
    """Bytes of the spool that count as backlog: of a command that has ended."""
    is_queued: bool = False
    """It has something to send, now or in a moment."""
    is_new: bool = True
    """Nothing of it was sent by this agent yet; one before it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """What is sent in one message: bytes, or the news that bytes are missing."""

    stream: ShippedStream
    offset: int
    data: bytes
    crc32: int
    gap_bytes: int
    gap_reason: str
    sent: SentPiece


@dataclass(slots=True, kw_only=True)
class _Shipment:
    keeps_spool: bool
    """The spool is still needed when its bytes are on the coordinator."""
    streams: tuple[ShippedStream, ...] = ()
    """Made when the command has written something."""
    is_revoked: bool = False


class LogStreams:
    def __init__(
        self,
        *,
        chunk_bytes: int,
        attempt_bytes: int,
        directory_of: Callable[[AttemptRef], Path],
        clock: Callable[[], float],
    ) -> None:
        """`attempt_bytes` is how much of one attempt may lie in its spool."""
        self._chunk_bytes, self._attempt_bytes = chunk_bytes, attempt_bytes
        self._directory_of, self._clock = directory_of, clock
        self.on_complete: Callable[[AttemptRef], None] = _ignore
        self.backlog_bytes = 0
        """What lies in spools of commands that have ended."""
        self._shipments: dict[AttemptRef, _Shipment] = {}
        self._silent: dict[AttemptRef, None] = {}
        """Commands that run and have written nothing yet."""
        self._growing: dict[AttemptRef, tuple[ShippedStream, ...]] = {}
        """Commands that run and have written something."""
        self._queue: deque[ShippedStream] = deque()

    @property
    def is_watching(self) -> bool:
        """Whether output could appear without anybody telling."""
        return bool(self._shipments)

    def watch(self, ref: AttemptRef, *, keeps_spool: bool) -> None:
        """Its command runs: whatever appears in its directory is sent."""
        if ref not in self._shipments:
            self._shipments[ref] = _Shipment(keeps_spool=keeps_spool)
            self._silent[ref] = None

    def ended(self, ref: AttemptRef, ends: tuple[int, int]) -> bool:
        """Its command wrote this much to stdout and stderr; returns whether there is something to send."""
        shipment = self._shipments.get(ref)
        if shipment is None or ends == (0, 0):
            self.drop(ref)
            self.on_complete(ref)
            return False
        self._open(ref, shipment)
        self._growing.pop(ref, None)
        for stream, end in zip(shipment.streams, ends, strict=True):
            stream.offsets.end = end
            self._saw(stream, end)
            self._count(stream, min(end - stream.released, self._attempt_bytes))
        # All of it may have been sent, and answered, while the command still ran.
        return not self._is_done(ref, shipment)

    def let_go(self, ref: AttemptRef) -> None:
        """Nobody else needs its spool any more."""
        if ref in self._shipments:
            self._shipments[ref].keeps_spool = False

    def drop(self, ref: AttemptRef) -> None:
        self._silent.pop(ref, None)
        self._growing.pop(ref, None)
        shipment = self._shipments.pop(ref, None)
        for stream in shipment.streams if shipment else ():
            stream.offsets.revoked = True  # the queue passes over it
            self._count(stream, 0)

    def start_over(self) -> None:
        """The connection broke: what was not answered is sent again."""
        now_s = self._clock()
        for shipment in self._shipments.values():
            for stream in shipment.streams:
                stream.offsets.start_over(now_s=now_s)
                self._enqueue(stream)

    async def look(self) -> None:
        """Finds what commands have written since the last look."""
        for ref in [ref for ref in self._silent if self._directory_of(ref).is_dir()]:
            self._open(ref, self._shipments[ref])
        growing = [stream for streams in self._growing.values() for stream in streams]
        if growing:
            ends = await asyncio.to_thread(_produced, growing)
            for stream, end in zip(growing, ends, strict=True):
                self._saw(stream, end)
            for stream in [stream for stream in growing if stream.offsets.is_unwanted]:
                if stream.ref in self._shipments and not self._shipments[stream.ref].keeps_spool:
                    await self._release(stream, stream.offsets.produced)

    async def next_pieces(self, most: int = _PIECES_AT_ONCE) -> list[LogPiece]:
        """One of each stream in turn that is due, about as much as one message takes; none when none is."""
        due = self._due(min(most, _PIECES_AT_ONCE))
        if not due:
            return []
        return self._pieces(due, await asyncio.to_thread(_read_all, due, self._chunk_bytes))

    async def answered(
        self, piece: LogPiece, durable_end: int, *, revoked: bool = False, quota: bool = False
    ) -> None:
        """The coordinator's reply to a piece."""
        stream = piece.stream
        stream.offsets.answered(piece.sent, durable_end, now_s=self._clock())
        stream.offsets.is_refused |= quota
        self._enqueue(stream)
        shipment = self._shipments.get(stream.ref)
        if shipment is None:
            return
        if revoked or (quota and piece.gap_bytes and durable_end < piece.sent.end):
            self._revoke(stream.ref, shipment)
        if not self._is_done(stream.ref, shipment) and not shipment.keeps_spool:
            await self._release(stream, stream.offsets.durable)

    def _revoke(self, ref: AttemptRef, shipment: _Shipment) -> None:
        """Nobody wants the attempt's output; while its command runs, what it writes is thrown away."""
        if not shipment.is_revoked:
            shipment.is_revoked = True
            log.warning("logs.revoked", task_key=ref.task_key, index=ref.index, attempt=ref.attempt)
        for stream in shipment.streams:
            stream.offsets.revoked = True

    async def _release(self, stream: ShippedStream, below: int) -> None:
        """Deletes what is not needed any more, once it is worth it."""
        if below // SEGMENT_BYTES > stream.released // SEGMENT_BYTES:
            stream.released = below
            if stream.offsets.end is not None:
                self._count(stream, min(stream.offsets.end - below, self._attempt_bytes))
            await asyncio.to_thread(stream.spool.release, below)

    def _count(self, stream: ShippedStream, lies_here: int) -> None:
        self.backlog_bytes += lies_here - stream.lies_here
        stream.lies_here = lies_here

    def _is_done(self, ref: AttemptRef, shipment: _Shipment) -> bool:
        """Whether all of it has arrived; then this is told, and nothing more is looked at."""
        if not all(stream.offsets.is_complete for stream in shipment.streams):
            return False
        self.drop(ref)
        self.on_complete(ref)
        return True

    def _open(self, ref: AttemptRef, shipment: _Shipment) -> None:
        self._silent.pop(ref, None)
        if shipment.streams:
            return
        directory = self._directory_of(ref)
        shipment.streams = tuple(
            ShippedStream(
                ref=ref,
                stream=stream,
                spool=OutputSpool(directory, stream),
                offsets=StreamOffsets(),
            )
            for stream in (LogStream.STDOUT, LogStream.STDERR)
        )
        self._growing[ref] = shipment.streams

    def _saw(self, stream: ShippedStream, produced: int) -> None:
        stream.offsets.saw(produced, now_s=self._clock())
        self._enqueue(stream)

    def _enqueue(self, stream: ShippedStream) -> None:
        if stream.offsets.has_unsent and not stream.is_queued:
            stream.is_queued = True
            self._queue.append(stream)

    def _due(self, most: int) -> list[tuple[ShippedStream, int]]:
        """Takes streams from the queue that have something to send now, each with where it goes on."""
        now_s = self._clock()
        due = []
        left = self._chunk_bytes
        for _ in range(len(self._queue)):
            stream = self._queue.popleft()
            stream.is_queued = False
            if stream.offsets.is_due(now_s):
                due.append((stream, stream.offsets.sent))
                left -= stream.offsets.produced - stream.offsets.sent
                if left <= 0 or len(due) >= most:
                    break
            else:
                self._enqueue(stream)
        return due

    def _pieces(self, due: Sequence[tuple[ShippedStream, int]], cuts: Iterable["_Cut"]) -> list[LogPiece]:
        pieces = []
        now_s = self._clock()
        for (stream, offset), cut in zip(due, cuts, strict=True):
            offsets = stream.offsets
            if offsets.sent == offset and not offsets.revoked:  # else it was rewound while it was read
                offsets.saw(cut.produced, now_s=now_s)
                if stream.is_new and not cut.data and cut.next_at is not None:
                    offsets.resume(cut.next_at, now_s=now_s)
                    stream.released = cut.next_at
                else:
                    pieces.append(_piece(stream, offset, cut, now_s=now_s))
                stream.is_new = False
            self._enqueue(stream)
        return pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """What was read of a stream."""

    data: bytes
    crc32: int
    produced: int
    next_at: int | None = None
    """Without data: where the next byte or gap lies."""


def _piece(stream: ShippedStream, offset: int, cut: _Cut, *, now_s: float) -> LogPiece:
    gap_bytes, gap_reason = (0, "") if cut.data else _gap_at(stream, offset, cut)
    return LogPiece(
        stream=stream,
        offset=offset,
        data=cut.data,
        crc32=cut.crc32,
        gap_bytes=gap_bytes,
        gap_reason=gap_reason,
        sent=stream.offsets.sending(len(cut.data) or gap_bytes, now_s=now_s),
    )


def _ignore(_ref: AttemptRef) -> None:
    """Nobody has asked to hear of it."""


def _produced(streams: Iterable[ShippedStream]) -> list[int]:
    return [stream.spool.produced_end() for stream in streams]


def _read_all(due: Iterable[tuple[ShippedStream, int]], limit: int) -> list[_Cut]:
    return [_read(stream, offset, limit) for stream, offset in due]


def _read(stream: ShippedStream, offset: int, limit: int) -> _Cut:
    """A broken disk has no bytes: what it held is told as missing."""
    try:
        data = b"" if stream.offsets.is_refused else stream.spool.read(offset, limit)
        return _Cut(
            data=data,
            crc32=zlib.crc32(data),
            # When the command has ended it is known how much it produced; short commands are many.
            produced=stream.offsets.end or stream.spool.produced_end(),
            next_at=None if data else stream.spool.first_from(offset),
        )
    except OSError:
        return _Cut(data=b"", crc32=0, produced=0)


def _gap_at(stream: ShippedStream, offset: int, cut: _Cut) -> tuple[int, str]:
    """How much is missing from `offset` on, and why; up to what is there, when the spool cannot say."""
    if stream.offsets.is_refused:
        return stream.offsets.produced - offset, "beyond what the coordinator stores of one log"
    with suppress(OSError):
        for gap in stream.spool.gaps():
            if gap.offset <= offset < gap.end:
                return gap.end - offset, gap.reason
    end = stream.offsets.produced if cut.next_at is None or cut.next_at == offset else cut.next_at
    return end - offset, "missing on the node"
