"""How long a phase of an attempt may take: each has a limit of its own, which its failure names.

Counted on the boot clock, and from where an agent before this one had begun it. A step that is told to
stop and does not is left behind in its thread.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from windlass_agent.runner.steps.base import StepContext
from windlass_agent.runner.steps.phase_record import PhaseRecord

Result = TypeVar("Result")

_LOOK_S = 0.1
_LASTS_S = 1.0
"""A phase that takes longer is written down, for an agent that starts while it goes on."""
_STOP_S = 2.0
"""For a step to notice that it is to stop; then it is left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLimit:
    phase: str
    limit: timedelta
    setting: str
    """Of the task, and of the agent (below `work.`)."""
    key: str = ""
    """What it is written down as; "" = phase."""

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
    record: PhaseRecord | None = None,
) -> Result:
    """Raises PhaseOver when the time is over, or the attempt was stopped and the step does not notice."""
    loop = asyncio.get_running_loop()
    key, since_s = limit.key or limit.phase, clock()
    until_s = since_s + limit.limit.total_seconds() - (record.used_s(key) if record else 0.0)
    is_late = is_written = False
    stop_by_s: float | None = None
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal is_late, is_written, stop_by_s, timer
        if stop_by_s is None and (context.cancelled.is_set() or clock() >= until_s):
            is_late = not context.cancelled.is_set()
            context.cancelled.set()
            stop_by_s = loop.time() + _STOP_S
            deadline.reschedule(stop_by_s)
            return
        if record and not is_written and clock() - since_s >= _LASTS_S:
            is_written = True
            record.lasts(key, since_s=since_s)
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
    if record and (is_written or record.used_s(key)):
        record.ended(key)
    return result


def in_words(duration: timedelta) -> str:
    """`90 s`, `10 min`, `6 h`: the largest unit that leaves no rest."""
    seconds = duration.total_seconds()
    for unit_s, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:g} s"
