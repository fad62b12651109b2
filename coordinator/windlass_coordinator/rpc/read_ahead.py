"""What was received and is not on its way to the disk yet; bounded, so that a fast sender waits for the
disk."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from windlass_proto.v1.agent_pb2 import AppendLogRequest

_MESSAGE_BYTES = 256
"""Counted for each message beside its data, so that a flood of empty ones is bounded too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Requests taken together."""

    requests: Sequence[AppendLogRequest]
    size_bytes: int
    """Known from the messages' own lengths: looking at `data` would copy it."""


class Budget:
    """Bytes that all streams together hold; only the event loop's thread touches it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    @property
    def is_spent(self) -> bool:
        return self.held_bytes >= self._limit_bytes


class ReadAhead:
    """Requests of one stream in their order, from one task that reads to one that writes.

    A stream that holds nothing may always take one message, so that no stream is starved by the others.
    """

    def __init__(self, *, limit_bytes: int, budget: Budget) -> None:
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._requests: deque[tuple[int, AppendLogRequest]] = deque()
        self._held_bytes = 0
        self._has_room = asyncio.Event()
        self._has_news = asyncio.Event()
        self._wanted_bytes = 1
        self._has_ended = False
        self._failure: Exception | None = None

    async def put(self, request: AppendLogRequest) -> None:
        """Adds a request, when there is room for more."""
        while self._held_bytes and (self._held_bytes >= self._limit_bytes or self._budget.is_spent):
            self._has_room.clear()
            await self._has_room.wait()
        size = _MESSAGE_BYTES + request.ByteSize()
        self._requests.append((size, request))
        self._hold(size)
        if self._held_bytes >= self._wanted_bytes:
            self._has_news.set()

    def end(self, failure: Exception | None = None) -> None:
        """No more requests will come; a `failure` is raised to the taker when it has taken what there was."""
        self._has_ended, self._failure = True, failure
        self._has_news.set()

    async def take(
        self,
        *,
        least_bytes: int,
        most_bytes: int,
        most_requests: int,
        pause: timedelta,
        patience: timedelta | None,
    ) -> Batch:
        """Waits for a request (`patience` at most; None = for ever), and then for `pause` at most until
        `least_bytes` have come.

        Gives what there is then, up to about `most_bytes` and `most_requests`; nothing when none came or the
        sender has ended.
        """
        await self._wait_for_bytes(1, patience)
        if self._requests:
            await self._wait_for_bytes(least_bytes, pause)
        taken: list[AppendLogRequest] = []
        size = 0
        while self._requests and size < most_bytes and len(taken) < most_requests:
            request_size, request = self._requests.popleft()
            size += request_size
            taken.append(request)
        self._hold(-size)
        self._has_room.set()
        if not taken and self._failure is not None:
            raise self._failure
        return Batch(requests=taken, size_bytes=size)

    @property
    def is_exhausted(self) -> bool:
        """Whether everything has been taken and no more will come."""
        return self._has_ended and not self._requests

    def drop(self) -> None:
        """Forgets what is held, because nobody will take it."""
        self._requests.clear()
        self._hold(-self._held_bytes)

    async def _wait_for_bytes(self, least_bytes: int, wait: timedelta | None) -> None:
        if self._held_bytes >= least_bytes or self._has_ended:
            return
        self._wanted_bytes = least_bytes
        self._has_news.clear()
        try:
            async with asyncio.timeout(wait.total_seconds() if wait is not None else None):
                await self._has_news.wait()
        except TimeoutError:
            return

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        self._budget.held_bytes += size
