"""Channels to the coordinator, and its errors in our words.

Two channels (decision D7): logs on the bulk channel cannot delay a heartbeat on the control channel.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
import grpc.aio
import structlog

from windlass_agent.core.backoff import Backoff
from windlass_proto.endpoints import grpc_target
from windlass_proto.errors import (
    Conflict,
    Denied,
    InvalidRequest,
    NoRoom,
    NotFound,
    Overloaded,
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
PUSHBACK_KEY = "grpc-retry-pushback-ms"
_MESSAGE_LIMIT = 4 << 20
_OPTIONS = (
    ("grpc.max_send_message_length", _MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Without it both channels would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_BY_CODE: dict[str, type[WindlassError]] = {
    kind.code: kind for kind in (InvalidRequest, NotFound, Conflict, Unavailable, NoRoom, Denied, SessionLost)
}
_BY_STATUS: dict[grpc.StatusCode, type[WindlassError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.UNIMPLEMENTED: InvalidRequest,
}
_LONGEST_PUSHBACK_MS = 60_000
"""Nobody is put off for longer by one answer."""

log = structlog.get_logger()


class NoAnswer(Unavailable):
    """Nothing came back in time."""


class Channels:
    """The way to the coordinator: the first that answers of those that `target` names (`endpoints`). Used
    inside the event loop that made it.

    A connection whose other end is gone without a word is given up by the library `keepalive_timeout` after
    something was sent that nobody acknowledges, or after `keepalive` more when it was quiet. What it does not
    see is a middlebox that takes everything and passes nothing on; for that there is `renew`.
    """

    def __init__(self, target: str, *, keepalive: timedelta, keepalive_timeout: timedelta) -> None:
        self.target = target
        options = (
            *_OPTIONS,
            ("grpc.keepalive_time_ms", _milliseconds(keepalive)),
            ("grpc.keepalive_timeout_ms", _milliseconds(keepalive_timeout)),
            # Without it the ping of the keepalive itself would be waited for a minute.
            ("grpc.http2.ping_timeout_ms", _milliseconds(keepalive_timeout)),
        )
        self._control = _Connection(grpc_target(target), options)
        self._bulk = _Connection(grpc_target(target), options)
        # They look like stubs, and lead to whichever connection is the current one.
        self.control = cast("AgentServiceAsyncStub", self._control)
        self.bulk = cast("AgentServiceAsyncStub", self._bulk)

    async def renew(self) -> None:
        """Both connections are made anew; calls that are under way on the old ones are cancelled."""
        await self._control.renew()
        await self._bulk.renew()

    async def renew_bulk(self) -> None:
        await self._bulk.renew()

    async def close(self) -> None:
        await self._control.close()
        await self._bulk.close()


class _Connection:
    """A channel that can be replaced, and the methods of the agent protocol over it."""

    def __init__(self, address: str, options: Sequence[tuple[str, int]]) -> None:
        self._address, self._options = address, options
        self._channel, self._stub = self._open()

    def __getattr__(self, name: str) -> Callable[..., object]:
        """A method of the stub, looked up when it is called: what is tried again uses a new channel."""

        def call(*arguments: object, **options: object) -> object:
            method: Callable[..., object] = getattr(self._stub, name)
            return method(*arguments, **options)

        return call

    async def renew(self) -> None:
        old, (self._channel, self._stub) = self._channel, self._open()
        await old.close()

    async def close(self) -> None:
        await self._channel.close()

    def _open(self) -> "tuple[grpc.aio.Channel, AgentServiceAsyncStub]":
        channel = grpc.aio.insecure_channel(self._address, options=self._options)
        return channel, AgentServiceStub(channel)


class Caller:
    """Makes calls with the node's credential, each with a deadline.

    While the coordinator cannot be reached only the lifeline (heartbeats, OpenSession) tries again and again;
    everything else waits for its success, so that an agent without coordinator makes less than a call a
    second.
    """

    def __init__(
        self,
        *,
        backoff: Backoff,
        credential: Callable[[], str],
        check: Callable[[], None],
        renew: Callable[[], Awaitable[None]],
        reconnect_within: Callable[[], timedelta] = timedelta,
    ) -> None:
        """`check` is asked before each call; it raises SessionLost when none may be made. `renew` makes new
        connections when the old ones do not answer any more. `reconnect_within` tells over how long those
        spread out who have lost the coordinator."""
        self._renew = renew
        self._reconnect_within = reconnect_within
        self.hears_nothing = False
        """The last call was not answered in time, which is no failure of the connection that one sees."""
        self._unanswered = 0
        self._under_way: set[object] = set()
        self._backoff = backoff
        self._credential = credential
        self.check = check
        self._is_reached = True
        self._lifeline_holds = asyncio.Event()
        self._lifeline_holds.set()

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
        self.check()
        call = method(request, timeout=timeout_s, metadata=self.metadata())
        self._under_way.add(call)
        try:
            reply = await call
        except grpc.aio.AioRpcError as problem:
            error = translated(problem)
            self._note(error)
            raise error from problem
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call in self._under_way or task is None or task.cancelling():
                raise  # it is us who are cancelled, not the call alone
            raise NoAnswer("its connection was given up") from None
        finally:
            self._under_way.discard(call)
        self._note(None)
        return reply

    async def lifeline(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Reply]",
        request: Request,
        *,
        timeout_s: float,
    ) -> Reply:
        """As `once`; what it comes to tells all others whether trying is worth it."""
        try:
            reply = await self.once(method, request, timeout_s=timeout_s)
        except Unavailable as problem:
            self._lifeline_holds.clear()
            self._unanswered = self._unanswered + 1 if isinstance(problem, NoAnswer) else 0
            # At the second, fourth, eighth ... silence: it may be the coordinator that is slow.
            if self._unanswered > 1 and self._unanswered & (self._unanswered - 1) == 0:
                await self._give_up_connections()
            raise
        self._unanswered = 0
        self._lifeline_holds.set()
        return reply

    async def _give_up_connections(self) -> None:
        log.warning("connection.given_up", unanswered=self._unanswered)
        self._under_way.clear()  # what is cancelled now is tried again, see `once`
        await self._renew()

    async def persist(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Reply]",
        request: Request,
        *,
        timeout_s: float,
        on_send: Callable[[], None] = lambda: None,
    ) -> Reply:
        """The same request again and again while the coordinator cannot be reached; `on_send` hears of each
        time."""
        failures = 0
        while True:
            on_send()
            try:
                return await self.once(method, request, timeout_s=timeout_s)
            except Unavailable as problem:
                failures += 1
                log.debug("call.failed", reason=str(problem), failures=failures)
                await self.pause(failures, problem)
                await self._lifeline_holds.wait()

    def _note(self, error: WindlassError | None) -> None:
        """People hear once that the coordinator is gone, and once that it is back."""
        self.hears_nothing = isinstance(error, NoAnswer)
        is_reached = not _is_out_of_reach(error)
        if is_reached != self._is_reached:
            self._is_reached = is_reached
            if is_reached:
                log.info("coordinator.reached")
            else:
                log.warning("coordinator.unreachable", reason=str(error))

    async def pause(self, failures: int, problem: WindlassError | None = None) -> None:
        """Not shorter than the coordinator asked for, and jitter on top: others were asked the same."""
        jitter = random.random()
        spread = self._reconnect_within() if _is_out_of_reach(problem) else timedelta(0)
        delay = self._backoff.within(spread).delay(failures, jitter=jitter)
        if isinstance(problem, Overloaded):
            delay = max(delay, problem.retry_after * (1 + jitter))
        await asyncio.sleep(delay.total_seconds())


def _is_out_of_reach(problem: WindlassError | None) -> bool:
    """For others perhaps as well; who was answered knows better when to come again."""
    return isinstance(problem, Unavailable) and not isinstance(problem, Overloaded | NoRoom)


def translated(problem: grpc.aio.AioRpcError) -> WindlassError:
    """Everything that is not known to be final counts as not reachable now."""
    metadata = problem.trailing_metadata()
    given = dict(metadata) if metadata is not None else {}
    words = problem.details() or problem.code().name
    pushback = _text(given.get(PUSHBACK_KEY, ""))
    if pushback.isdigit():
        return Overloaded(words, retry_after=timedelta(milliseconds=min(int(pushback), _LONGEST_PUSHBACK_MS)))
    if problem.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return NoAnswer(words)
    kind = _BY_CODE.get(_text(given.get(ERROR_CODE_KEY, ""))) or _BY_STATUS.get(problem.code(), Unavailable)
    return kind(words)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
