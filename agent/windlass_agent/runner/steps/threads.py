"""Where a step blocks: in a thread of its own, which may be left behind when it does not come back.

The event loop's own threads are few and shared with the heartbeat's look at the machine, and the agent could
not end before the last of them does: a hung file system must take neither.
"""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

import structlog

Result = TypeVar("Result")

_numbers = itertools.count(1)
_left_behind: set[int] = set()

log = structlog.get_logger()


def left_behind() -> int:
    """Threads whose result nobody waits for any more and that have not ended."""
    return len(_left_behind)


async def in_thread(action: Callable[[], Result]) -> Result:
    """What `action` returns or raises. When the wait is cancelled, the thread goes on for nobody."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()
    number = next(_numbers)

    def settle(outcome: Callable[[], None]) -> None:
        if number in _left_behind:
            _left_behind.discard(number)
            log.info("step.came_back", left_behind=len(_left_behind))
        elif not future.done():
            outcome()

    def run() -> None:
        outcome: Callable[[], None]
        try:
            result = action()
        except BaseException as problem:  # noqa: BLE001  (carried over to whoever waits)
            failure = problem
            outcome = lambda: future.set_exception(failure)  # noqa: E731  (two ends of one story)
        else:
            outcome = lambda: future.set_result(result)  # noqa: E731  (the other end of it)
        with suppress(RuntimeError):  # the agent has ended meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    Thread(target=run, name=f"step-{number}", daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        _left_behind.add(number)
        log.warning("step.left_behind", left_behind=len(_left_behind))
        raise
