"""What stands around every call: who is calling, may they, is it too much, and what errors become.

One interceptor does all of it, because each layer costs every call. A wrapped handler is made once per method
and kept; per call there remain one look-up of the token, a bound to be kept and two context variables.
"""

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from contextvars import ContextVar
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from windlass_coordinator.auth.access import METHODS, Access, is_allowed
from windlass_coordinator.auth.identity import (
    AdminIdentity,
    AgentIdentity,
    Authenticator,
    Identity,
    Unauthenticated,
    UserIdentity,
)
from windlass_coordinator.auth.tokens import parse_token
from windlass_coordinator.core.overload import OverloadLimits
from windlass_coordinator.rpc.connections import Peers, peer_of
from windlass_coordinator.rpc.gates import Gate
from windlass_coordinator.rpc.overload import Overload
from windlass_coordinator.rpc.status import wire_error
from windlass_coordinator.stores.lanes import Lane, current_lane
from windlass_proto.errors import Denied, InvalidRequest, NoRoom, Overloaded, Unavailable, WindlassError

# The handlers of all methods pass through here: their message types are not known, nor needed.
Handler = Any
Context = grpc.aio.ServicerContext[Any, Any]

_AUTHORIZATION = "authorization"
_BEARER = "bearer "
_identity: ContextVar[Identity] = ContextVar("windlass_identity")
_log = structlog.get_logger()


def current_caller() -> AdminIdentity | UserIdentity:
    """The user or admin whose call is being served."""
    identity = _identity.get()
    if isinstance(identity, AgentIdentity):
        raise Denied(f"the node {identity.node_id} may not do what users do")
    return identity


def current_node() -> AgentIdentity:
    """The node whose call is being served."""
    identity = _identity.get()
    if not isinstance(identity, AgentIdentity):
        raise Denied("only a node may do this: use a node's credential")
    return identity


class CallGuard(grpc.aio.ServerInterceptor):
    """The interceptor of the coordinator's gRPC server."""

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        overload: Overload | None = None,
        peers: Peers | None = None,
        why_no_room: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`why_no_room` says why nothing may be made that stays, in one sentence."""
        self._authenticator = authenticator
        self._overload = overload or Overload(OverloadLimits())
        self._peers = peers or Peers(OverloadLimits())
        self._why_no_room = why_no_room
        self._guarded: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._is_going_down = False

    def end_streams(self) -> None:
        """Ends calls that would go on for as long as somebody listens; they are told to come again."""
        self._is_going_down = True
        for stream in self._streams:
            stream.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        method = handler_call_details.method
        guarded = self._guarded.get(method)
        if guarded is not None:
            return guarded
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        self._guarded[method] = self._guard(method, handler)
        return self._guarded[method]

    def _guard(self, method: str, handler: Handler) -> Handler:
        """The same handler with the guard around it."""
        codec = {
            "request_deserializer": _readable(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._one(method, handler.unary_unary), **codec)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._many(method, handler.unary_stream), **codec)
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(self._many(method, handler.stream_stream), **codec)
        return grpc.stream_unary_rpc_method_handler(self._one(method, handler.stream_unary), **codec)

    def _one(self, method: str, serve: Handler) -> Handler:
        access = METHODS.get(method)
        lane, gates = self._overload.way(method)

        async def guarded(request: Any, context: Context) -> Any:
            try:
                if self._is_going_down:
                    raise _going_down()
                with _Passage(gates):
                    await self._admit(access, lane, context)
                    return await serve(_read(request), context)
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError:
                self._peers.offend(peer_of(context.peer()))
                raise
            except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
                self._note_put_off(context, error)
                await _abort(context, method, error)

        return guarded

    def _note_put_off(self, context: Context, error: Exception) -> None:
        """Refused before anybody looked at its credential: that is no offence of the caller's."""
        peer = peer_of(context.peer())
        if isinstance(error, Overloaded) and peer not in self._peers.proven:
            with suppress(Unauthenticated):
                if parse_token(_bearer_token(context)) is not None:
                    self._peers.ask_again_later(peer)

    def _many(self, method: str, serve: Handler) -> Handler:
        if not inspect.isasyncgenfunction(serve):
            return self._one(method, serve)  # it writes its replies to the context
        access = METHODS.get(method)
        lane, gates = self._overload.way(method)

        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            stream = asyncio.current_task()
            assert stream is not None
            try:
                with _Passage(gates):
                    self._note_waiting(stream)
                    await self._admit(access, lane, context)
                    with self._following(lane):
                        async with aclosing(serve(_read(request), context)) as replies:
                            async for reply in replies:
                                # Cancelled while it writes, the library would leave the call open.
                                self._streams.discard(stream)
                                yield reply
                                self._note_waiting(stream)
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError:
                if not self._is_going_down:
                    self._peers.offend(peer_of(context.peer()))
                    raise  # the caller has gone
                stream.uncancel()
                await _abort(context, method, _going_down())
            except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
                await _abort(context, method, error)
            finally:
                self._streams.discard(stream)

        return guarded

    def _note_waiting(self, stream: asyncio.Task[Any]) -> None:
        """The stream may be ended from now on; one that comes too late ends itself."""
        if self._is_going_down:
            raise _going_down()
        self._streams.add(stream)

    def _following(self, lane: Lane) -> AbstractContextManager[None]:
        """The share of the caller's tenant in the streams of users."""
        return self._overload.following(current_caller().tenant) if lane is Lane.LOOK else nullcontext()

    async def _admit(self, access: Access | None, lane: Lane, context: Context) -> None:
        """Finds out who calls and whether they may."""
        current_lane.set(lane)
        if access is Access.OPEN:
            self._check_room(lane, "the coordinator's disk is full: try again later")
            return
        if access is None:
            raise Denied("this method is not open to anybody")
        peer = peer_of(context.peer())
        try:
            identity = await self._authenticator.authenticate(_bearer_token(context))
        except Unauthenticated:
            self._peers.offend(peer)
            raise
        self._peers.proven.add(peer)
        if not is_allowed(identity, access):
            raise Denied(f"this method is for {access.value} credentials only")
        _identity.set(identity)
        self._check_room(lane)

    def _check_room(self, lane: Lane, told_to_strangers: str = "") -> None:
        if lane is Lane.CHANGE and (why := self._why_no_room()) is not None:
            raise NoRoom(told_to_strangers or why)


class _Noise:
    """A request that is no message of its method. The library would log a traceback of ours for it."""


def _readable(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserialize is None:  # a handler that takes the bytes as they are
        return None

    def read(data: bytes) -> Any:  # the message, or that it is none
        try:
            return deserialize(data)
        except DecodeError:
            return _Noise()

    return read


def _read(request: Any) -> Any:  # a message, or an iterator of them
    if isinstance(request, _Noise):
        raise _no_message()
    return _messages(request) if isinstance(request, AsyncIterator) else request


async def _messages(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, _Noise):
            raise _no_message()
        yield request


def _no_message() -> InvalidRequest:
    return InvalidRequest("the request is not a message of this method: it cannot be read")


def _going_down() -> Unavailable:
    return Unavailable("this coordinator is going down: call again")


class _Passage:
    """One call more is being served; entering raises Overloaded when that is too many. Written out as a class
    because each call pays for it: a generator costs three times as much."""

    __slots__ = ("_entered", "_gates")

    def __init__(self, gates: tuple[Gate, ...]) -> None:
        self._gates = gates
        self._entered = 0

    def __enter__(self) -> None:
        try:
            for gate in self._gates:
                gate.enter()
                self._entered += 1
        except Overloaded:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for gate in self._gates[: self._entered]:
            gate.leave()


def _bearer_token(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == _AUTHORIZATION:
            text = value if isinstance(value, str) else value.decode(errors="replace")
            if text[: len(_BEARER)].lower() == _BEARER:
                return text[len(_BEARER) :].strip()
    raise Unauthenticated("no token: send the metadata `authorization: Bearer <token>`")


async def _abort(context: Context, method: str, error: Exception) -> None:
    """Ends the call with what the caller may know of the error."""
    known = wire_error(error) if isinstance(error, WindlassError) else None
    if known is not None:
        await context.abort(known.status, known.details, trailing_metadata=known.trailers)
    request_id = secrets.token_hex(8)
    _log.error("call.failed", method=method, request_id=request_id, exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL, f"internal error; the coordinator's log has it under {request_id}"
    )
