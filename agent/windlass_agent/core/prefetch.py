"""How much work to ask for beyond the free slots.

Prefetched attempts let an exit be followed by a start without a round trip. They also tie work to a node
that another could have started sooner, so they are bounded by time, not by number: at most as many as the
slots get through in `ahead`, as observed, and none for tasks that run longer than that.
"""

from dataclasses import dataclass
from datetime import timedelta

_WEIGHT_OF_NEWEST = 0.2
_SHORTEST_RUN_S = 0.0001
"""A floor for the estimate: it is divided by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchLimits:
    ahead: timedelta = timedelta(milliseconds=60)
    """Work taken in advance lasts about this long; 50-100 ms hide a round trip and a commit."""
    most: int = 512
    """Attempts taken in advance at most; at 512 a batch is as cheap as it gets."""


def updated_run_time(previous_s: float | None, observed_s: float) -> float:
    """The moving average of run times after one more was observed."""
    observed_s = max(observed_s, _SHORTEST_RUN_S)
    if previous_s is None:
        return observed_s
    return previous_s + _WEIGHT_OF_NEWEST * (observed_s - previous_s)


def prefetch_target(slots: int, run_time_s: float | None, limits: PrefetchLimits) -> int:
    """How many attempts may wait on the node behind those that run; 0 while nothing is known."""
    ahead_s = limits.ahead.total_seconds()
    if run_time_s is None or run_time_s > ahead_s:
        return 0
    return min(int(slots * ahead_s / run_time_s), limits.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    want: int
    """Instances that could be taken now."""
    is_urgent: bool
    """Whether asking now is worth a call: batches are dear when small, so half a stock is used up first."""


def demand(*, free_slots: int, target: int, waiting: int) -> Demand:
    """`waiting` are the attempts on the node that do not run yet, `target` how many there may be."""
    want = max(0, free_slots + target - waiting)
    has_idle_slot = free_slots > 0 and waiting == 0
    return Demand(want=want, is_urgent=want > 0 and (has_idle_slot or want * 2 >= target))
