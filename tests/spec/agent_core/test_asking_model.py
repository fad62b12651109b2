"""How much an agent asks for, how long it waits: bounds that hold for every number."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from windlass_agent.core.backoff import Backoff
from windlass_agent.core.prefetch import PrefetchLimits, demand, prefetch_target, updated_run_time

run_times = st.floats(0, 1e6)


@examples(100)
@given(st.none() | run_times, st.lists(run_times, min_size=1, max_size=30))
def test_an_estimate_lies_between_what_was_seen(first: float | None, seen: list[float]) -> None:
    estimate = first
    for one in seen:
        estimate = updated_run_time(estimate, one)
    bounds = [max(one, 0.0001) for one in seen] + ([] if first is None else [first])
    assert estimate is not None
    assert min(bounds) * 0.999_999 <= estimate <= max(bounds) * 1.000_001


@examples(150)
@given(
    st.integers(0, 1000),
    st.none() | st.floats(0.0001, 1e6),
    st.timedeltas(timedelta(0), timedelta(seconds=1)),
    st.integers(0, 2000),
)
def test_what_is_taken_in_advance_is_bounded_by_time_and_number(
    slots: int, run_time_s: float | None, ahead: timedelta, most: int
) -> None:
    target = prefetch_target(slots, run_time_s, PrefetchLimits(ahead=ahead, most=most))
    assert 0 <= target <= most
    if run_time_s is None or run_time_s > ahead.total_seconds():
        assert target == 0
    else:
        assert target * run_time_s <= slots * ahead.total_seconds() * 1.000_001


@examples(150)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 3000))
def test_no_more_is_asked_for_than_there_is_room_for_and_an_idle_slot_is_always_urgent(
    free_slots: int, target: int, waiting: int
) -> None:
    asked = demand(free_slots=free_slots, target=target, waiting=waiting)
    assert asked.want >= 0
    assert waiting + asked.want <= max(waiting, free_slots + target)
    assert not (asked.is_urgent and not asked.want)
    if free_slots and not waiting:
        assert asked.is_urgent, "a node with nothing to do asks at once"


@examples(100)
@given(
    st.timedeltas(timedelta(milliseconds=1), timedelta(seconds=10)),
    st.timedeltas(timedelta(seconds=1), timedelta(minutes=10)),
    st.integers(1, 10_000),
    st.floats(0, 1, exclude_max=True),
)
def test_a_pause_is_within_its_bounds_and_grows_with_the_failures(
    base: timedelta, ceiling: timedelta, failures: int, jitter: float
) -> None:
    backoff = Backoff(base=base, ceiling=ceiling)
    pause = backoff.delay(failures, jitter=jitter)
    assert timedelta(0) <= pause <= ceiling
    assert pause <= backoff.delay(failures + 1, jitter=jitter)


def test_without_a_failure_there_is_no_pause() -> None:
    with pytest.raises(ValueError, match="at least one failure"):
        Backoff().delay(0, jitter=0.5)
