"""The output of attempts that has to reach the coordinator, and what of it is sent next.

Reading happens in threads. Streams take turns, so that one that writes without end delays no other.
Thousands of short commands may wait for the coordinator's answers at once, so no step looks at all of them:
what has something to send stands in a queue, and only commands that still run are looked at.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from windlass_agent.core.log_offsets import SentPiece, StreamOffsets
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import LogStream

_RELEASE_BYTES = 8 << 20
"""Uploaded bytes are deleted from the spool in steps of this size, that of a segment."""


@dataclass(slots=True, kw_only=True)
class ShippedStream:
    ref: AttemptRef
    stream: LogStream
    spool: OutputSpool
    offsets: StreamOffsets
    released: int = 0
    is_queued: bool = False
    """It has something to send, now or in a moment."""


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


class LogStreams:
    def __init__(
        self,
        *,
        chunk_bytes: int,
        directory_of: Callable[[AttemptRef], Path],
        clock: Callable[[], float],
    ) -> None:
        self._chunk_bytes, self._directory_of, self._clock = chunk_bytes, directory_of, clock
        self.on_complete: Callable[[AttemptRef], None] = _ignore
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

    async def next_piece(self) -> LogPiece | None:
        """From the next stream in turn that is due; None when none is."""
        now_s = self._clock()
        for _ in range(len(self._queue)):
            stream = self._queue.popleft()
            stream.is_queued = False
            if not stream.offsets.has_unsent:
                continue
            if stream.offsets.is_due(now_s):
                piece = await self._cut(stream)
                self._enqueue(stream)
                return piece
            self._enqueue(stream)
        return None

    async def answered(self, piece: LogPiece, durable_end: int, *, revoked: bool) -> None:
        """The coordinator's reply to a piece."""
        stream = piece.stream
        stream.offsets.answered(piece.sent, durable_end, now_s=self._clock())
        stream.offsets.revoked |= revoked
        self._enqueue(stream)
        shipment = self._shipments.get(stream.ref)
        if shipment is None:
            return
        if self._is_done(stream.ref, shipment):
            return
        if not shipment.keeps_spool and stream.offsets.durable - stream.released >= _RELEASE_BYTES:
            stream.released = stream.offsets.durable
            await asyncio.to_thread(stream.spool.release, stream.released)

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

    async def _cut(self, stream: ShippedStream) -> LogPiece:
        """The next piece of a stream that is due."""
        offsets = stream.offsets
        offset = offsets.sent
        data, crc32, produced = await asyncio.to_thread(_read, stream, offset, self._chunk_bytes)
        now_s = self._clock()
        offsets.saw(produced, now_s=now_s)
        gap_bytes, gap_reason = (0, "") if data else _gap_at(stream, offset)
        return LogPiece(
            stream=stream,
            offset=offset,
            data=data,
            crc32=crc32,
            gap_bytes=gap_bytes,
            gap_reason=gap_reason,
            sent=offsets.sending(len(data) or gap_bytes, now_s=now_s),
        )


def _ignore(_ref: AttemptRef) -> None:
    """Nobody has asked to hear of it."""


def _produced(streams: Iterable[ShippedStream]) -> list[int]:
    return [stream.spool.produced_end() for stream in streams]


def _read(stream: ShippedStream, offset: int, limit: int) -> tuple[bytes, int, int]:
    data = stream.spool.read(offset, limit)
    return data, zlib.crc32(data), stream.spool.produced_end()


def _gap_at(stream: ShippedStream, offset: int) -> tuple[int, str]:
    """How much is missing from `offset` on, and why; everything known, when the spool cannot say."""
    for gap in stream.spool.gaps():
        if gap.offset <= offset < gap.offset + gap.length:
            return gap.offset + gap.length - offset, gap.reason
    return stream.offsets.produced - offset, "missing on the node"
