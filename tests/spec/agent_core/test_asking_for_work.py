"""How much work an agent asks for, and how long it waits between tries."""

from datetime import timedelta

import pytest

from windlass_agent.core.backoff import Backoff
from windlass_agent.core.lease_clock import LeaseClock
from windlass_agent.core.prefetch import Demand, PrefetchLimits, demand, prefetch_target, updated_run_time

LIMITS = PrefetchLimits(ahead=timedelta(milliseconds=60), most=512)


def test_nothing_is_prefetched_while_no_run_time_is_known() -> None:
    assert prefetch_target(4, None, LIMITS) == 0


def test_long_tasks_are_not_prefetched() -> None:
    assert prefetch_target(4, 0.061, LIMITS) == 0


def test_short_tasks_are_prefetched_for_the_time_that_a_round_trip_takes() -> None:
    assert prefetch_target(2, 0.002, LIMITS) == 60


def test_prefetch_has_a_limit_however_short_the_tasks() -> None:
    assert prefetch_target(64, 0.0001, LIMITS) == 512


def test_the_run_time_moves_towards_what_was_observed_last() -> None:
    assert updated_run_time(None, 1.0) == 1.0
    assert updated_run_time(1.0, 2.0) == pytest.approx(1.2)


def test_a_task_that_takes_no_time_leaves_an_estimate_that_can_be_divided_by() -> None:
    assert updated_run_time(None, 0.0) > 0


def test_an_idle_node_asks_at_once_for_its_slots_and_its_stock() -> None:
    assert demand(free_slots=2, target=10, waiting=0) == Demand(want=12, is_urgent=True)


def test_a_stock_is_refilled_when_half_of_it_is_used() -> None:
    assert demand(free_slots=0, target=10, waiting=6) == Demand(want=4, is_urgent=False)
    assert demand(free_slots=0, target=10, waiting=5) == Demand(want=5, is_urgent=True)


def test_a_full_node_wants_nothing() -> None:
    assert demand(free_slots=0, target=0, waiting=0) == Demand(want=0, is_urgent=False)
    assert demand(free_slots=0, target=3, waiting=9) == Demand(want=0, is_urgent=False)


@pytest.mark.parametrize(("failures", "longest_s"), [(1, 0.1), (2, 0.2), (5, 1.6), (60, 15.0)])
def test_pauses_double_up_to_a_ceiling_and_are_spread_evenly_below_it(
    failures: int, longest_s: float
) -> None:
    backoff = Backoff(base=timedelta(milliseconds=100), ceiling=timedelta(seconds=15))
    assert backoff.delay(failures, jitter=0.0) == timedelta(0)
    assert backoff.delay(failures, jitter=0.5).total_seconds() == pytest.approx(longest_s / 2)


def test_who_failed_with_all_others_spreads_out_from_the_first_pause_on() -> None:
    backoff = Backoff(base=timedelta(milliseconds=100), ceiling=timedelta(seconds=5))

    assert backoff.within(timedelta(0)) == backoff
    assert backoff.within(timedelta(seconds=20)).delay(1, jitter=0.5) == timedelta(seconds=10)
    assert backoff.within(timedelta(seconds=20)).delay(9, jitter=0.5) == timedelta(seconds=10)
    assert backoff.within(timedelta(seconds=2)).delay(9, jitter=0.5) == timedelta(seconds=2.5)


def test_a_lease_counts_from_the_sending_of_the_acknowledged_heartbeat() -> None:
    clock = LeaseClock(interval_s=5, lease_s=15, renewed_at_s=100)
    renewed = clock.acknowledged(sent_at_s=110, interval_s=5, lease_s=15)
    assert not renewed.is_expired(124.9)
    assert renewed.is_expired(125.0)


def test_an_older_heartbeat_that_is_answered_late_does_not_shorten_the_lease() -> None:
    clock = LeaseClock(interval_s=5, lease_s=15, renewed_at_s=110)
    assert clock.acknowledged(sent_at_s=100, interval_s=5, lease_s=15) == clock


def test_heartbeats_are_spread_by_a_fifth_of_their_interval() -> None:
    clock = LeaseClock(interval_s=10, lease_s=30, renewed_at_s=0)
    assert clock.pause_s(jitter=0.0) == pytest.approx(8)
    assert clock.pause_s(jitter=0.999999) == pytest.approx(12, abs=0.001)
