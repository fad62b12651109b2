"""Carries output to the coordinator as `link/log_shipper.py` does, with the real offsets."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.messages import AppendCall, Appended
from windlass_agent.core.log_offsets import SentPiece, StreamOffsets
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import LogStream

if TYPE_CHECKING:
    from tests.simulation.agent import Agent

_LOOK_EVERY_S = 1.0
_CHUNK_BYTES = 64
_WINDOW = 4
_STALL_S = 6.0


@dataclass(slots=True)
class _Stream:
    ref: AttemptRef
    stream: LogStream
    spool: OutputSpool
    offsets: StreamOffsets = field(default_factory=StreamOffsets)


class Shipper:
    """Implements the runner's LogSink."""

    def __init__(self, agent: "Agent", on_complete: Callable[[AttemptRef], None]) -> None:
        self._agent, self._on_complete = agent, on_complete
        self._watched: dict[AttemptRef, tuple[_Stream, ...]] = {}
        self._in_flight = 0
        self._connection = 0
        self._is_active = False
        self._is_looking = False

    def watch(self, ref: AttemptRef, *, keeps_spool: bool) -> None:
        self._watched.setdefault(ref, ())
        if not self._is_looking:
            self._is_looking = True
            self._agent.after(_LOOK_EVERY_S, self._look)

    def ended(self, ref: AttemptRef, ends: tuple[int, int]) -> None:
        if ref not in self._watched or ends == (0, 0):
            self.drop(ref)
            self._on_complete(ref)
            return
        self._open(ref)
        for stream, end in zip(self._watched[ref], ends, strict=True):
            stream.offsets.end = end
            stream.offsets.saw(end, now_s=self._agent.boot_s())
        if not self._is_done(ref):
            self._pump()

    def let_go(self, ref: AttemptRef) -> None:
        """The spool is deleted with the attempt only."""

    def drop(self, ref: AttemptRef) -> None:
        for stream in self._watched.pop(ref, ()):
            stream.offsets.revoked = True

    def begin(self) -> None:
        """A session begins."""
        self._is_active = True
        self._pump()

    def suspend(self) -> None:
        """The session is over: what was not answered is sent again in the next one."""
        self._is_active = False
        self._break()

    def _break(self) -> None:
        self._connection += 1
        self._in_flight = 0
        for streams in self._watched.values():
            for stream in streams:
                stream.offsets.start_over(now_s=self._agent.boot_s())

    def _look(self) -> None:
        self._is_looking = bool(self._watched)
        if not self._is_looking:
            return
        self._agent.after(_LOOK_EVERY_S, self._look)
        now_s = self._agent.boot_s()
        for ref, streams in list(self._watched.items()):
            if not streams and self._agent.node.disk.attempt(ref).is_dir():
                self._open(ref)
            for stream in self._watched[ref]:
                stream.offsets.saw(stream.spool.produced_end(), now_s=now_s)
        self._pump()

    def _open(self, ref: AttemptRef) -> None:
        if not self._watched[ref]:
            directory = self._agent.node.disk.attempt(ref)
            self._watched[ref] = tuple(
                _Stream(ref, stream, OutputSpool(directory, stream)) for stream in LogStream
            )

    def _pump(self) -> None:
        now_s = self._agent.boot_s()
        for streams in list(self._watched.values()):
            for stream in streams:
                while self._is_active and self._in_flight < _WINDOW and stream.offsets.is_due(now_s):
                    if not self._send(stream, now_s):
                        break

    def _send(self, stream: _Stream, now_s: float) -> bool:
        offset = stream.offsets.sent
        data = stream.spool.read(offset, _CHUNK_BYTES)
        gap = 0 if data else _gap_at(stream, offset)
        if not data and gap <= 0:
            return False
        piece = stream.offsets.sending(len(data) or gap, now_s=now_s)
        request = AppendCall(
            node_key=self._agent.node_key,
            ref=stream.ref,
            stream=stream.stream,
            offset=offset,
            data=data,
            crc32=zlib.crc32(data),
            gap_bytes=gap,
            gap_reason="missing on the node" if gap else "",
        )
        self._in_flight += 1
        connection, sent_at = self._connection, self._agent.world.now
        self._agent.network.call(
            self._agent,
            self._agent.node.path,
            "AppendLog",
            request,
            timeout_s=_STALL_S,
            on_reply=lambda reply: self._answered(stream, piece, reply, connection, sent_at=sent_at),
            on_error=lambda error: self._failed(error, connection),
            in_order=f"log {connection}",
        )
        return True

    def _answered(
        self, stream: _Stream, piece: SentPiece, reply: Appended, connection: int, *, sent_at: float
    ) -> None:
        if connection != self._connection:
            return
        self._in_flight -= 1
        self._agent.world.note("log answered", self._agent.name, stream.ref, stream.stream, reply.durable_end)
        if sent_at > self._agent.node.ledger.restored_at:  # else it may be a word of what was restored away
            self._agent.node.ledger.log_acknowledged(stream.ref, stream.stream, reply.durable_end)
        stream.offsets.answered(piece, reply.durable_end, now_s=self._agent.boot_s())
        if stream.ref in self._watched:
            if reply.revoked:
                for other in self._watched[stream.ref]:
                    other.offsets.revoked = True
            self._is_done(stream.ref)
        self._pump()

    def _failed(self, error: WindlassError, connection: int) -> None:
        if connection != self._connection or not self._is_active:
            return
        self._break()
        self._agent.after(self._agent.pause_s(1), self._pump)

    def _is_done(self, ref: AttemptRef) -> bool:
        streams = self._watched.get(ref, ())
        if not all(stream.offsets.is_complete for stream in streams):
            return False
        self.drop(ref)
        self._on_complete(ref)
        return True


def _gap_at(stream: _Stream, offset: int) -> int:
    """How much is missing from `offset` on; everything known, when the spool cannot say."""
    for gap in stream.spool.gaps():
        if gap.offset <= offset < gap.end:
            return gap.end - offset
    return stream.offsets.produced - offset
