"""Carries what commands write to the coordinator, on the bulk channel.

One call carries the streams of all attempts. What was sent and not answered is bounded; what breaks is sent
again from what is known to be on the coordinator's disk.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import structlog

from windlass_agent.link.channel import Caller, Channels, translated
from windlass_agent.link.log_streams import LogPiece, LogStreams
from windlass_proto import convert
from windlass_proto.errors import Denied, SessionLost
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.ids import AttemptRef
from windlass_proto.v1 import agent_pb2 as wire

_LOOK_EVERY_S = 0.1
"""How soon the output of a running command is noticed."""
_IDLE_S = 5.0
"""A call with nothing to carry is closed after this time."""
_STALL_S = 30.0
"""Without an answer for this long the call is given up and a new one begun."""
_WINDOW_PIECES = 2048
"""Sent and not answered; small pieces are bounded by number, as each costs the coordinator a file."""
_BUSY_PIECES = 16
"""With so many unanswered nobody waits for the next one at once ..."""
_COMPANY_S = 0.02
"""... so it waits for company: many outputs read and sent in one go cost half of what they cost alone."""
_CALL_S = 3600.0
"""Deadline of one call; a new one follows."""

log = structlog.get_logger()

if TYPE_CHECKING:
    _Call = grpc.aio.StreamStreamCall[wire.AppendLogRequest, wire.AppendLogReply]


class _CallEnd(Enum):
    IDLE = auto()
    """There was nothing to send."""
    BROKEN = auto()
    SESSION_LOST = auto()


class LogShipper:
    def __init__(
        self,
        channels: Channels,
        caller: Caller,
        *,
        window_bytes: int,
        chunk_bytes: int,
        attempt_bytes: int,
        directory_of: Callable[[AttemptRef], Path],
        clock: Callable[[], float],
    ) -> None:
        self._channels, self._caller = channels, caller
        self._window_bytes, self._chunk_bytes = window_bytes, chunk_bytes
        self._streams = LogStreams(
            chunk_bytes=chunk_bytes, attempt_bytes=attempt_bytes, directory_of=directory_of, clock=clock
        )
        self._wake = asyncio.Event()
        self._active = asyncio.Event()
        self._next_look_s = 0.0
        self._in_flight: deque[LogPiece] = deque()
        self._in_flight_bytes = 0
        self._flight_changed = asyncio.Event()
        self._pieces_allowed = _WINDOW_PIECES
        """In flight: few after a call that broke, as its successor may break too, and twice as many with
        each answer. What was sent and not answered is sent again, so a window that never gets through
        would be sent for ever."""

    @property
    def backlog_bytes(self) -> int:
        """Output of commands that have ended, which the coordinator does not have yet."""
        return self._streams.backlog_bytes

    def attach(self, on_complete: Callable[[AttemptRef], None]) -> None:
        """`on_complete` hears of attempts whose output is wholly on the coordinator (or not wanted)."""
        self._streams.on_complete = on_complete

    def watch(self, ref: AttemptRef, *, keeps_spool: bool) -> None:
        self._active.set()
        self._streams.watch(ref, keeps_spool=keeps_spool)

    def ended(self, ref: AttemptRef, ends: tuple[int, int]) -> None:
        if self._streams.ended(ref, ends):
            self._active.set()
            self._wake.set()

    def let_go(self, ref: AttemptRef) -> None:
        self._streams.let_go(ref)

    def drop(self, ref: AttemptRef) -> None:
        self._streams.drop(ref)

    async def serve(self, session: SessionRef) -> None:
        """Returns when the session is lost."""
        failures = 0
        try:
            while True:
                pieces = await self._wait_for_pieces(None)
                end = await self._call(session, pieces)
                if end is _CallEnd.SESSION_LOST:
                    return
                failures = failures + 1 if end is _CallEnd.BROKEN else 0
                if failures:
                    self._pieces_allowed = 1
                    await self._caller.pause(failures)
        finally:
            self._streams.start_over()

    async def _call(self, session: SessionRef, first: Sequence[LogPiece]) -> _CallEnd:
        call: _Call = self._channels.bulk.AppendLog(timeout=_CALL_S, metadata=self._caller.metadata())
        self._flight_changed.clear()
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send(call, session, first))
                receiving = group.create_task(self._receive(call))
                await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
                sending.cancel()
                receiving.cancel()
            if not receiving.cancelled():
                return receiving.result()
            return _CallEnd.BROKEN if sending.cancelled() else sending.result()
        finally:
            call.cancel()
            self._in_flight.clear()
            self._in_flight_bytes = 0
            self._streams.start_over()

    async def _send(self, call: "_Call", session: SessionRef, first: Sequence[LogPiece]) -> _CallEnd:
        pieces = first
        session_message: wire.SessionRef | None = convert.session_ref_to_wire(session)
        try:
            while pieces:
                self._caller.check()
                for piece in pieces:
                    self._in_flight.append(piece)
                    self._in_flight_bytes += len(piece.data)
                    self._flight_changed.set()
                    await call.write(_message(piece, session_message))
                    session_message = None
                is_small = sum(len(piece.data) for piece in pieces) < self._chunk_bytes
                if is_small and len(self._in_flight) >= _BUSY_PIECES:
                    await asyncio.sleep(_COMPANY_S)
                await self._wait_for_room()
                pieces = await self._wait_for_pieces(_IDLE_S)
            await call.done_writing()
            async with asyncio.timeout(_IDLE_S):
                await call.code()
        except TimeoutError:
            return _CallEnd.IDLE
        except grpc.aio.AioRpcError as problem:
            return _end_of(problem)
        except SessionLost:
            return _CallEnd.SESSION_LOST
        except asyncio.InvalidStateError:  # what write() raises when the call has ended meanwhile
            return await _end_of_call(call)
        return _CallEnd.IDLE

    async def _receive(self, call: "_Call") -> _CallEnd:
        try:
            while True:
                while not self._in_flight:
                    self._flight_changed.clear()
                    await self._flight_changed.wait()
                async with asyncio.timeout(_STALL_S):
                    reply = await call.read()
                if not isinstance(reply, wire.AppendLogReply):
                    return await _end_of_call(call)
                await self._answered(reply)
        except TimeoutError:
            log.warning("logs.stalled", stalled_s=_STALL_S)
            await self._channels.renew_bulk()
            return _CallEnd.BROKEN
        except grpc.aio.AioRpcError as problem:
            return _end_of(problem)

    async def _answered(self, reply: wire.AppendLogReply) -> None:
        piece = self._in_flight.popleft()
        self._in_flight_bytes -= len(piece.data)
        self._pieces_allowed = min(self._pieces_allowed * 2, _WINDOW_PIECES)
        self._flight_changed.set()
        await self._streams.answered(piece, reply.durable_end, revoked=reply.revoked, quota=reply.quota)
        self._wake.set()

    async def _wait_for_room(self) -> None:
        while self._in_flight_bytes >= self._window_bytes or len(self._in_flight) >= self._pieces_allowed:
            self._flight_changed.clear()
            await self._flight_changed.wait()

    async def _wait_for_pieces(self, idle_s: float | None) -> Sequence[LogPiece]:
        """The next pieces that are due; none after `idle_s` without one and with nothing under way."""
        loop = asyncio.get_running_loop()
        idle_until_s = None if idle_s is None else loop.time() + idle_s
        while True:
            self._wake.clear()
            if loop.time() >= self._next_look_s:
                self._next_look_s = loop.time() + _LOOK_EVERY_S
                await self._streams.look()
            pieces = await self._streams.next_pieces(self._pieces_allowed - len(self._in_flight))
            if pieces:
                return pieces
            if idle_until_s is None and not self._streams.is_watching:
                self._active.clear()
                await self._active.wait()
            if idle_until_s is not None and loop.time() >= idle_until_s and not self._in_flight:
                return ()
            # Not woken by each command that starts: short ones come and go between two looks.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._wake.wait()


def _message(piece: LogPiece, session: wire.SessionRef | None) -> wire.AppendLogRequest:
    return wire.AppendLogRequest(
        session=session,
        ref=convert.attempt_ref_to_wire(piece.stream.ref),
        stream=convert.LOG_STREAM.to_wire(piece.stream.stream),
        offset=piece.offset,
        data=piece.data,
        crc32=piece.crc32,
        gap_bytes=piece.gap_bytes,
        gap_reason=piece.gap_reason,
    )


async def _end_of_call(call: "_Call") -> _CallEnd:
    """Why the coordinator ended the call, from its status."""
    code = await call.code()
    metadata = await call.trailing_metadata()
    return _end_of(
        grpc.aio.AioRpcError(code, await call.initial_metadata(), metadata, details=await call.details())
    )


def _end_of(problem: grpc.aio.AioRpcError) -> _CallEnd:
    error = translated(problem)
    if isinstance(error, SessionLost | Denied):
        return _CallEnd.SESSION_LOST
    log.debug("logs.interrupted", reason=str(error))
    return _CallEnd.BROKEN
