"""The connections of simulated agents: an answer to every call, whatever becomes of them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.fleet_channel import OUT_OF_REACH, Channel


class _Deaf(asyncio.Transport):
    def write(self, data: Any) -> None:
        """Nobody reads it."""


async def _lost_at_once(make: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
    protocol = make()
    protocol.connection_made(_Deaf())
    protocol.connection_lost(None)


async def test_a_connection_that_goes_before_its_first_call_was_never_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", _lost_at_once)
    answers: list[tuple[bytes | None, bytes]] = []
    channel = Channel("127.0.0.1", 1, credential="", gate=asyncio.Semaphore(1))
    channel.call(b"/a/b", b"", lambda reply, trailers: answers.append((reply, trailers)), timeout_s=1)
    await asyncio.sleep(0.01)
    assert answers == [(None, OUT_OF_REACH)]
