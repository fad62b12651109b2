"""Calls that attempts make one by one, in whichever session is open.

The loops of a session end with it; an attempt that asks for something lives on and asks again in the next.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import grpc.aio

from windlass_agent.link.channel import Caller
from windlass_proto.errors import SessionLost
from windlass_proto.model.assignments import SessionRef

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class CurrentSession:
    def __init__(self, caller: Caller, *, timeout_s: float) -> None:
        self._caller, self._timeout_s = caller, timeout_s
        self._session: SessionRef | None = None
        self._opened = asyncio.Event()

    async def serve(self, session: SessionRef) -> None:
        """While the session is open; never returns."""
        self._session = session
        self._opened.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._session = None

    async def ask(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Reply]",
        request_in: Callable[[SessionRef], Request],
    ) -> Reply:
        """Waits for a session and for the coordinator, as long as it takes. Raises what the coordinator
        answers for good."""
        lost: SessionRef | None = None
        while True:
            session = await self._other_than(lost)
            try:
                return await self._caller.persist(method, request_in(session), timeout_s=self._timeout_s)
            except SessionLost:
                lost = session

    async def _other_than(self, lost: SessionRef | None) -> SessionRef:
        while self._session is None or self._session == lost:
            self._opened.clear()
            await self._opened.wait()
        return self._session
