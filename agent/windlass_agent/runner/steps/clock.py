"""How long a phase of an attempt may take: each has a limit of its own, which its failure names.

Counted on the boot clock. A step that is told to stop and does not is left behind in its thread.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from windlass_agent.runner.steps.base import StepContext

Result = TypeVar("Result")

_LOOK_S = 0.1
_STOP_S = 2.0
"""For a step to notice that it is to stop; then it is left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLimit:
    phase: str
    limit: timedelta
    setting: str
    """Of the task, and of the agent (below `work.`)."""

    def why(self, trouble: str) -> str:
        """`trouble` = what it tried again for; "" = it was slow."""
        over = f"{self.phase}: not done within {in_words(self.limit)} ({self.setting})"
        return f"{over}; the last problem: {trouble}" if trouble else over


class PhaseOver(Exception):
    """The step did not come to its end."""


async def within(
    limit: PhaseLimit,
    context: StepContext,
    step: Callable[[], Awaitable[Result]],
    *,
    clock: Callable[[], float],
) -> Result:
    """Raises PhaseOver when the time is over, or the attempt was stopped and the step does not notice."""
    loop = asyncio.get_running_loop()
    until_s = clock() + limit.limit.total_seconds()
    is_late = False
    stop_by_s: float | None = None
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal is_late, stop_by_s, timer
        if stop_by_s is None and (context.cancelled.is_set() or clock() >= until_s):
            is_late = not context.cancelled.is_set()
            context.cancelled.set()
            stop_by_s = loop.time() + _STOP_S
            deadline.reschedule(stop_by_s)
            return
        timer = loop.call_later(_LOOK_S, look)

    try:
        async with asyncio.timeout(None) as deadline:
            timer = loop.call_later(_LOOK_S, look)
            try:
                result = await step()
            finally:
                timer.cancel()
    except TimeoutError:
        raise PhaseOver(limit.why(context.trouble) if is_late else "it was stopped") from None
    if is_late:
        raise PhaseOver(limit.why(context.trouble))
    return result


def in_words(duration: timedelta) -> str:
    """`90 s`, `10 min`, `6 h`: the largest unit that leaves no rest."""
    seconds = duration.total_seconds()
    for unit_s, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:g} s"
