"""When a node need not send a heartbeat: it has no attempt, and its polls show that it lives (decision 0021).

Every poll renews the lease, from its sending, once it is answered. So a heartbeat is due when there is
something that only a heartbeat says, when the polls are not answered, or when the last one was long ago.
"""

from dataclasses import dataclass

from windlass_proto.model.assignments import QuietTiming

LOOKS_PER_INTERVAL = 4
"""A node that has left out a heartbeat looks so often whether it is quiet yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietState:
    """What decides whether a heartbeat may be left out."""

    timing: QuietTiming | None
    """None = the coordinator takes polls for no sign of life."""
    is_empty: bool
    """Nothing is here that a lease could cover, and nothing is to be told of what was."""
    is_answered: bool
    """The last call was."""
    is_leased: bool
    has_news: bool
    """Something is to be said with the next heartbeat."""
    silent_for_s: float
    """Since the last heartbeat that was answered."""


def may_leave_out(state: QuietState) -> bool:
    """The heartbeat that would be due now."""
    return (
        state.timing is not None
        and state.is_empty
        and state.is_answered
        and state.is_leased
        and not state.has_news
        and state.silent_for_s < state.timing.interval.total_seconds()
    )
