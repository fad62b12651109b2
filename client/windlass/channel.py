"""The wire to the coordinator: one channel, who is calling, deadlines, retries, and errors in our words.

This is the only module of the client that knows gRPC's calls and status codes.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import grpc

from windlass_proto.endpoints import grpc_target
from windlass_proto.errors import (
    Conflict,
    Denied,
    InvalidJob,
    InvalidRequest,
    NoRoom,
    NotFound,
    Overloaded,
    Problem,
    Unavailable,
    WindlassError,
)

Reply = TypeVar("Reply")

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""A specification with the largest allowed environment fits; log chunks are far smaller."""
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_BACKOFF_FIRST_S = 0.1
_BACKOFF_LONGEST_S = 2.0
_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # else the ping of the keepalive would be waited for a minute
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Every client is told apart by its own connection; a shared one would also share keepalive faults.
    ("grpc.use_local_subchannel_pool", 1),
)
_BY_CODE: dict[str, type[WindlassError]] = {
    kind.code: kind for kind in (InvalidRequest, NotFound, Conflict, Unavailable, Overloaded, NoRoom, Denied)
}
_BY_STATUS: dict[grpc.StatusCode, type[WindlassError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,  # by a coordinator that ends; our own raises CancelledError
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
}


class Connection:
    """A channel to the coordinator, or the first that answers of several. Safe to use from one event loop;
    close it when done."""

    def __init__(self, address: str, *, token: str) -> None:
        self.address = address
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.channel = grpc.aio.insecure_channel(grpc_target(address), options=_OPTIONS)

    async def close(self) -> None:
        await self.channel.close()

    # A stub's method is typed per message by generated code; here it is any of them.
    async def call(
        self,
        method: Callable[..., Any],
        request: Any,
        *,
        timeout: timedelta,
        patience: timedelta,
    ) -> Any:
        """One reply. Tries again while the coordinator is unavailable, for `patience`; so the call must be
        safe to repeat. With no patience it is made once."""
        patience_left = Patience(patience=patience)
        while True:
            try:
                return await method(request, timeout=timeout.total_seconds(), metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                asked_s = _asked_pause_s(error)
                may_repeat = error.code() is grpc.StatusCode.UNAVAILABLE or asked_s is not None
                if not may_repeat or not await patience_left.pause(at_least_s=asked_s or 0.0):
                    self._raise(error)

    async def stream(self, method: Callable[..., Any], request: Any) -> AsyncIterator[Any]:
        """The replies of one streaming call; no retry, the caller knows where to go on."""
        call = method(request, metadata=self._metadata)
        try:
            async for reply in call:
                yield reply
        except grpc.aio.AioRpcError as error:
            self._raise(error)
        finally:
            call.cancel()

    def _raise(self, error: grpc.aio.AioRpcError) -> NoReturn:
        raise error_of(error, address=self.address) from error


class Patience:
    """Pauses that grow, until the patience is used up."""

    def __init__(self, *, patience: timedelta) -> None:
        self._patience_s = patience.total_seconds()
        self.reset()

    def reset(self) -> None:
        """Something worked: start over."""
        self._pause_s = _BACKOFF_FIRST_S
        self._give_up_at: float | None = None

    async def pause(self, *, at_least_s: float = 0.0) -> bool:
        """Waits a little; False (at once) when the patience is used up."""
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + self._patience_s
        if now + max(self._pause_s, at_least_s) > self._give_up_at:
            return False
        await asyncio.sleep(at_least_s + self._pause_s * random.uniform(0.7, 1.3))
        self._pause_s = min(self._pause_s * 2, _BACKOFF_LONGEST_S)
        return True


def _asked_pause_s(error: grpc.aio.AioRpcError) -> float | None:
    """How long a coordinator with too much to do asks us to wait; None when it asks nothing."""
    for key, value in error.trailing_metadata() or ():
        if key == _PUSHBACK_KEY:
            text = value if isinstance(value, str) else value.decode(errors="replace")
            return int(text) / 1000 if text.isdecimal() else None
    return None


def error_of(error: grpc.aio.AioRpcError, *, address: str) -> WindlassError:
    """Our error for a failed call: by the code the coordinator sent, else by gRPC's status."""
    trailers = {str(key): value for key, value in error.trailing_metadata() or ()}
    details = error.details() or error.code().name
    code = trailers.get("windlass-error-code", "")
    if code == InvalidJob.code:
        return InvalidJob(_problems(trailers.get("windlass-problems-bin", b"[]"), details))
    if code in _BY_CODE:
        return _BY_CODE[str(code)](details)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(
            f"no coordinator answers at {address}: is it running? (`windlass up` starts one on this machine)"
        )
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"the coordinator at {address} did not answer in time: try again")
    return _BY_STATUS.get(error.code(), WindlassError)(details)


def _problems(sent: str | bytes, details: str) -> Sequence[Problem]:
    try:
        pairs = json.loads(sent)
        return [Problem(path=str(path), message=str(message)) for path, message in pairs]
    except ValueError:
        return [Problem(path="", message=details)]
