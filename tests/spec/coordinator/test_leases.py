"""How often nodes must be heard, and how long silence is borne."""

from datetime import timedelta

import pytest

from windlass_coordinator.core.leases import (
    LeasePolicy,
    heartbeat_interval,
    lease_ttl,
    restart_grace,
    tolerance,
)
from windlass_coordinator.engine.fleet import Fleet, Silence
from windlass_proto.model.ids import NodeKey

POLICY = LeasePolicy()
NODE = NodeKey(1)


@pytest.mark.parametrize(
    ("nodes", "interval_s", "lease_s"), [(0, 5, 15), (2_500, 5, 15), (10_000, 20, 60), (10**6, 60, 180)]
)
def test_intervals_grow_with_the_fleet_and_a_lease_is_three_of_them(
    nodes: int, interval_s: float, lease_s: float
) -> None:
    interval = heartbeat_interval(POLICY, nodes=nodes)

    assert interval == timedelta(seconds=interval_s)
    assert lease_ttl(POLICY, interval=interval) == timedelta(seconds=lease_s)


def test_a_lease_has_a_least_length() -> None:
    assert lease_ttl(POLICY, interval=timedelta(seconds=1)) == timedelta(seconds=15)


@pytest.mark.parametrize(("duration_s", "tolerance_s"), [(15, 2), (100, 2), (1_000, 20)])
def test_the_coordinator_waits_a_little_longer_than_the_agent(duration_s: float, tolerance_s: float) -> None:
    assert tolerance(timedelta(seconds=duration_s)) == timedelta(seconds=tolerance_s)


def test_after_a_restart_nobody_is_silent_for_two_of_the_longest_intervals() -> None:
    assert restart_grace(POLICY) == timedelta(seconds=130)


class Clock:
    """Seconds that go when told."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


NOTHING = Silence(expired=(), replace=(), forget=())


def a_fleet() -> tuple[Fleet, Clock]:
    clock = Clock()
    return Fleet(POLICY, monotonic=clock), clock


def test_a_node_is_silent_when_its_lease_and_the_tolerance_are_over() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)

    clock.now_s += 17
    assert fleet.look() == NOTHING
    clock.now_s += 0.1
    assert fleet.look() == Silence(expired=(NODE,), replace=(), forget=())


def test_each_bound_of_a_silence_is_told_once() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)

    clock.now_s += 301
    assert fleet.look() == Silence(expired=(NODE,), replace=(NODE,), forget=())
    assert fleet.look() == NOTHING
    clock.now_s += 24 * 3600
    assert fleet.look() == Silence(expired=(), replace=(), forget=(NODE,))
    assert fleet.look() == NOTHING


def test_a_sign_of_life_begins_a_new_silence() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    clock.now_s += 301
    fleet.look()

    fleet.hear(NODE)

    assert fleet.look() == NOTHING
    clock.now_s += 18
    assert fleet.look() == Silence(expired=(NODE,), replace=(), forget=())


def test_a_restarted_coordinator_counts_silence_from_its_own_start() -> None:
    fleet, clock = a_fleet()
    fleet.expect(NODE)

    clock.now_s += 129
    assert fleet.look() == NOTHING
    clock.now_s += 2
    assert fleet.look() == Silence(expired=(NODE,), replace=(), forget=())
    clock.now_s += 170
    assert fleet.look() == Silence(expired=(), replace=(NODE,), forget=())


def test_a_silence_that_could_not_be_stored_is_told_again() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    clock.now_s += 301
    silence = fleet.look()

    fleet.tell_again(silence)

    assert fleet.look() == silence == Silence(expired=(NODE,), replace=(NODE,), forget=())
    clock.now_s += 24 * 3600
    forgotten = fleet.look()
    fleet.tell_again(forgotten)
    clock.now_s += 25 * 3600
    assert fleet.look() == Silence(expired=(NODE,), replace=(NODE,), forget=(NODE,))


def test_a_node_that_left_is_never_missed() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    fleet.forget(NODE)

    clock.now_s += 10**6

    assert fleet.look() == NOTHING


def test_a_poll_may_be_a_repetition_unless_its_number_is_new_here() -> None:
    fleet, _ = a_fleet()

    assert fleet.note_poll(NODE, epoch=1, poll_seq=7), "its answer may be from before a restart"
    assert not fleet.note_poll(NODE, epoch=1, poll_seq=8)
    assert fleet.note_poll(NODE, epoch=1, poll_seq=8)
    assert not fleet.note_poll(NODE, epoch=2, poll_seq=1)


def test_a_late_poll_of_an_older_session_does_not_make_a_repetition_look_new() -> None:
    fleet, _ = a_fleet()
    fleet.note_poll(NODE, epoch=2, poll_seq=1)

    assert fleet.note_poll(NODE, epoch=1, poll_seq=99)
    assert fleet.note_poll(NODE, epoch=2, poll_seq=1)
