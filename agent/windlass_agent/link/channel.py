"""Channels to the coordinator, and its errors in our words.

Two channels (decision D7): logs on the bulk channel cannot delay a heartbeat on the control channel.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
import structlog

from windlass_agent.core.backoff import Backoff
from windlass_proto.errors import (
    Conflict,
    Denied,
    InvalidRequest,
    NotFound,
    SessionLost,
    Unavailable,
    WindlassError,
)
from windlass_proto.v1.agent_pb2_grpc import AgentServiceStub

if TYPE_CHECKING:
    from windlass_proto.v1.agent_pb2_grpc import AgentServiceAsyncStub

Request = TypeVar("Request")
Reply = TypeVar("Reply")

ERROR_CODE_KEY = "windlass-error-code"
_MESSAGE_LIMIT = 4 << 20
_OPTIONS = (
    ("grpc.max_send_message_length", _MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Without it both channels would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_BY_CODE: dict[str, type[WindlassError]] = {
    kind.code: kind for kind in (InvalidRequest, NotFound, Conflict, Unavailable, Denied, SessionLost)
}
_BY_STATUS: dict[grpc.StatusCode, type[WindlassError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.UNIMPLEMENTED: InvalidRequest,
}

log = structlog.get_logger()


class Channels:
    """The way to one coordinator. Used inside the event loop that made it."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._control = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._bulk = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self.control: AgentServiceAsyncStub = AgentServiceStub(self._control)
        self.bulk: AgentServiceAsyncStub = AgentServiceStub(self._bulk)

    async def close(self) -> None:
        await self._control.close()
        await self._bulk.close()


class Caller:
    """Makes calls with the node's credential, each with a deadline."""

    def __init__(self, *, backoff: Backoff, credential: Callable[[], str]) -> None:
        self._backoff = backoff
        self._credential = credential
        self._is_reached = True

    def metadata(self) -> tuple[tuple[str, str], ...]:
        credential = self._credential()
        return (("authorization", f"Bearer {credential}"),) if credential else ()

    async def once(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Reply]",
        request: Request,
        *,
        timeout_s: float,
    ) -> Reply:
        """Raises one of our errors."""
        try:
            reply = await method(request, timeout=timeout_s, metadata=self.metadata())
        except grpc.aio.AioRpcError as problem:
            error = translated(problem)
            self._note(error)
            raise error from problem
        self._note(None)
        return reply

    async def persist(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Reply]",
        request: Request,
        *,
        timeout_s: float,
    ) -> Reply:
        """The same request again and again while the coordinator cannot be reached."""
        failures = 0
        while True:
            try:
                return await self.once(method, request, timeout_s=timeout_s)
            except Unavailable as problem:
                failures += 1
                log.debug("call.failed", reason=str(problem), failures=failures)
                await self.pause(failures)

    def _note(self, error: WindlassError | None) -> None:
        """People hear once that the coordinator is gone, and once that it is back."""
        is_reached = not isinstance(error, Unavailable)
        if is_reached != self._is_reached:
            self._is_reached = is_reached
            if is_reached:
                log.info("coordinator.reached")
            else:
                log.warning("coordinator.unreachable", reason=str(error))

    async def pause(self, failures: int) -> None:
        delay = self._backoff.delay(failures, jitter=random.random())
        await asyncio.sleep(delay.total_seconds())


def translated(problem: grpc.aio.AioRpcError) -> WindlassError:
    """Everything that is not known to be final counts as not reachable now."""
    metadata = problem.trailing_metadata()
    given = dict(metadata).get(ERROR_CODE_KEY, "") if metadata is not None else ""
    code = given.decode() if isinstance(given, bytes) else str(given)
    kind = _BY_CODE.get(code) or _BY_STATUS.get(problem.code(), Unavailable)
    return kind(problem.details() or problem.code().name)
