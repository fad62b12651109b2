"""How often nodes must be heard, and how long silence is borne."""

from datetime import timedelta

import pytest

from windlass_coordinator.core.leases import (
    LeasePolicy,
    heartbeat_interval,
    lease_ttl,
    poll_wait,
    replace_due,
    restart_grace,
    timing_for,
    tolerance,
)
from windlass_coordinator.core.records import DetachedAttempt, HeldAttempt
from windlass_coordinator.engine.fleet import Fleet, Silence
from windlass_proto.model.ids import Fence, NodeKey, TaskKey
from windlass_proto.model.specs import DisconnectPolicy
from windlass_proto.model.states import AttemptState

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


def test_a_poll_is_parked_as_long_as_asked_but_the_first_ends_at_any_time() -> None:
    longest, asked = timedelta(seconds=30), timedelta(seconds=10)

    assert poll_wait(longest, asked=None, poll_seq=2, jitter=0.5) == longest
    assert poll_wait(longest, asked=asked, poll_seq=2, jitter=0.5) == asked
    assert poll_wait(longest, asked=2 * longest, poll_seq=2, jitter=0.5) == longest
    assert poll_wait(longest, asked=asked, poll_seq=1, jitter=0.5) == timedelta(seconds=5)
    assert poll_wait(longest, asked=None, poll_seq=1, jitter=0.0) == timedelta()


@pytest.mark.parametrize(
    ("nodes", "poll_s", "reconnect_s"), [(10, 6.75, 0), (299, 6.75, 0), (10_000, 27, 33), (20_000, 30, 66)]
)
def test_nodes_without_attempts_poll_twice_in_a_lease_and_a_lost_fleet_comes_back_bit_by_bit(
    nodes: int, poll_s: float, reconnect_s: float
) -> None:
    timing = timing_for(POLICY, nodes=nodes)

    assert timing.quiet is not None
    assert timing.quiet.poll_wait == timedelta(seconds=poll_s)
    assert timing.reconnect_within == timedelta(seconds=reconnect_s)


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


def detached(disconnect: DisconnectPolicy, outlives: timedelta) -> DetachedAttempt:
    held = HeldAttempt(task_key=TaskKey(1), index=0, attempt=1, fence=Fence(1), state=AttemptState.RUNNING)
    return DetachedAttempt(held=held, disconnect=disconnect, outlives_lease_for=outlives)


KEEPS_GOING = detached(DisconnectPolicy.KEEP_GOING, timedelta(hours=24))
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
    assert fleet.look() == Silence(expired=(NODE,), replace=(), forget=())
    fleet.watch(NODE, [KEEPS_GOING])
    assert fleet.look() == Silence(expired=(), replace=((NODE, timedelta(seconds=301)),), forget=())
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
    fleet.watch(NODE, [KEEPS_GOING])
    clock.now_s += 168
    assert fleet.look() == NOTHING
    clock.now_s += 1
    assert fleet.look() == Silence(expired=(), replace=((NODE, timedelta(seconds=300)),), forget=())


def test_a_restarted_coordinator_counts_with_the_lease_that_a_fleet_of_this_size_was_told() -> None:
    fleet, clock = a_fleet()
    for number in range(10_000):
        fleet.expect(NodeKey(number))
    clock.now_s += 131
    assert NodeKey(0) in fleet.look().expired
    careful = detached(DisconnectPolicy.NO_OVERLAP, timedelta(minutes=30))
    fleet.watch(NodeKey(0), [careful])

    # The agent may have been told of a lease of 60 s just before the restart.
    its_command_ends = timedelta(seconds=60) + timedelta(minutes=30) + POLICY.kill_grace
    assert not fleet.is_due(NodeKey(0), careful, silence=its_command_ends)


def test_a_lease_that_was_told_counts_until_the_agent_must_have_heard_of_a_shorter_one() -> None:
    fleet, clock = a_fleet()
    for number in range(10_000):
        fleet.hear(NodeKey(number))
    fleet.hear(NODE)
    assert fleet.timing().lease == timedelta(seconds=60)
    for number in range(2, 10_000):
        fleet.forget(NodeKey(number))
    assert fleet.timing().lease == timedelta(seconds=15)

    clock.now_s += 20
    fleet.hear(NODE)  # and the answer is lost

    clock.now_s += 40
    assert NODE not in fleet.look().expired
    clock.now_s += 3
    assert NODE in fleet.look().expired


def test_a_poll_is_a_sign_of_life_for_as_long_as_the_lease_that_was_told() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    for number in range(2, 10_001):
        fleet.expect(NodeKey(number))
    assert fleet.timing().lease == timedelta(seconds=60)

    clock.now_s += 10
    fleet.hear_poll(NODE)

    clock.now_s += 17
    assert NODE not in fleet.look().expired
    clock.now_s += 0.1
    assert NODE in fleet.look().expired
    assert fleet.heard_since_last() == {NODE}


def test_a_node_is_told_with_its_poll_what_it_does_not_know_yet_and_counted_by_that() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    assert fleet.news_for(NODE) is None
    for number in range(2, 10_000):
        fleet.expect(NodeKey(number))

    fleet.hear_poll(NODE)
    assert fleet.news_for(NODE) == fleet.timing()
    assert fleet.news_for(NODE) is None

    clock.now_s += 61
    assert NODE not in fleet.look().expired


def test_after_a_restart_a_poll_gives_the_same_grace_again_until_its_node_has_been_told() -> None:
    fleet, clock = a_fleet()
    fleet.expect(NODE)
    clock.now_s += 100
    fleet.hear_poll(NODE)
    clock.now_s += 129
    assert NODE not in fleet.look().expired

    fleet.hear_poll(NODE)
    assert fleet.news_for(NODE) == fleet.timing()
    clock.now_s += 17.1
    assert NODE in fleet.look().expired


def test_a_poll_of_a_node_that_is_not_known_here_is_no_news_for_it() -> None:
    fleet, _ = a_fleet()

    assert fleet.news_for(NODE) is None


def test_a_silence_that_could_not_be_stored_is_told_again() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    clock.now_s += 301
    expired = fleet.look()
    fleet.tell_again(expired)
    assert fleet.look() == expired == Silence(expired=(NODE,), replace=(), forget=())

    fleet.watch(NODE, [KEEPS_GOING])
    due = fleet.look()
    fleet.tell_again(due)
    assert fleet.look() == due == Silence(expired=(), replace=((NODE, timedelta(seconds=301)),), forget=())

    clock.now_s += 24 * 3600
    forgotten = fleet.look()
    assert forgotten == Silence(expired=(), replace=(), forget=(NODE,))
    fleet.tell_again(forgotten)
    clock.now_s += 131
    assert fleet.look() == Silence(expired=(NODE,), replace=(), forget=())


def test_attempts_of_one_node_are_replaced_each_by_its_own_policy() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    hasty = detached(DisconnectPolicy.FAST_REPLACE, timedelta(0))
    careful = detached(DisconnectPolicy.NO_OVERLAP, timedelta(minutes=30))
    clock.now_s += 18
    fleet.look()
    fleet.watch(NODE, [KEEPS_GOING, hasty, careful])

    def due_after(seconds: float) -> list[bool]:
        """What is told to be due when the silence has lasted so long: hasty, keeps going, careful."""
        clock.now_s = 1_000 + seconds
        told = fleet.look().replace
        return (
            [fleet.is_due(NODE, one, silence=told[0][1]) for one in (hasty, KEEPS_GOING, careful)]
            if told
            else []
        )

    # Lease 15 s and its tolerance 2 s, kill grace 30 s and its tolerance 2 s.
    assert due_after(48.9) == []
    assert due_after(49.1) == [True, False, False]
    assert due_after(299) == []
    assert due_after(300.1) == [True, True, False]
    # 30 min and 30 s, and 2 % of that.
    assert due_after(17 + 1830 + 36.5) == []
    assert due_after(17 + 1830 + 36.7) == [True, True, True]


def test_no_overlap_replaces_only_when_the_node_has_ended_the_command_by_its_own_clock() -> None:
    lease = lease_ttl(POLICY, interval=POLICY.shortest_interval)
    run_for = timedelta(minutes=10)
    replaced_at = replace_due(
        POLICY, lease=lease, disconnect=DisconnectPolicy.NO_OVERLAP, outlives_lease_for=run_for
    )
    # The agent counts from sending, the coordinator from receiving; its clock may be 1 % slow.
    ended_at_the_latest = 1.01 * (lease + run_for + POLICY.kill_grace)
    assert ended_at_the_latest < replaced_at


def test_a_stall_of_the_coordinator_itself_is_nobodys_silence() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    clock.now_s += 1_000

    fleet.pardon(timedelta(seconds=990))

    assert fleet.look() == NOTHING
    clock.now_s += 7.5
    assert fleet.look() == Silence(expired=(NODE,), replace=(), forget=())


def test_a_node_that_left_is_never_missed() -> None:
    fleet, clock = a_fleet()
    fleet.hear(NODE)
    fleet.forget(NODE)

    clock.now_s += 10**6

    assert fleet.look() == NOTHING


def polls(fleet: Fleet, epoch: int, poll_seq: int, *, via: str = "a connection") -> bool:
    return fleet.note_poll(NODE, epoch=epoch, poll_seq=poll_seq, via=via)


def test_a_poll_may_be_a_repetition_unless_its_number_is_new_here() -> None:
    fleet, _ = a_fleet()

    assert polls(fleet, 1, 7), "its answer may be from before a restart"
    assert not polls(fleet, 1, 8)
    assert polls(fleet, 1, 8)
    assert not polls(fleet, 2, 1)


def test_a_late_poll_of_an_older_session_does_not_make_a_repetition_look_new() -> None:
    fleet, _ = a_fleet()
    polls(fleet, 2, 1)

    assert polls(fleet, 1, 99)
    assert polls(fleet, 2, 1)


def test_a_poll_on_another_connection_may_have_been_answered_by_another_coordinator() -> None:
    fleet, _ = a_fleet()
    polls(fleet, 1, 7)

    assert polls(fleet, 1, 9, via="a new connection")
    assert not polls(fleet, 1, 10, via="a new connection")


def test_a_node_that_joined_has_its_time_for_a_first_session_since_it_was_seen_here() -> None:
    fleet, clock = a_fleet()
    other = NodeKey(NODE + 1)
    assert fleet.overdue_joining([NODE]) == []
    clock.now_s += 1_800
    assert fleet.overdue_joining([NODE, other]) == []
    clock.now_s += 1_801
    assert fleet.overdue_joining([NODE, other]) == [NODE]
    fleet.pardon(timedelta(minutes=10))
    clock.now_s += 600
    assert fleet.overdue_joining([other]) == []
    clock.now_s += 1_800
    assert fleet.overdue_joining([other]) == [other]
