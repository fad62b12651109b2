"""Two clocks that never met: the agent's view of its lease always ends before the coordinator's."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from windlass_agent.core.lease_clock import LeaseClock
from windlass_coordinator.core.leases import (
    LeasePolicy,
    heartbeat_interval,
    lease_ttl,
    replace_due,
    restart_grace,
    tolerance,
)
from windlass_coordinator.engine.fleet import Fleet
from windlass_proto.model.assignments import Timing
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.specs import DisconnectPolicy

NODE = NodeKey(1)
delays = st.floats(0, 100)
NEVER_S = 10_000.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


calls = st.tuples(st.booleans(), delays, delays, st.none() | delays)
"""Whether it is a poll or a heartbeat; pause before it is sent, time until it is processed, and until its
reply is read (None = lost). A poll is parked in between."""


@examples(60)
@given(
    st.lists(calls, min_size=1, max_size=8),
    st.integers(0, 3_000),
    st.floats(-1e6, 1e6),
    st.lists(st.integers(0, 3_000), max_size=8),
)
def test_the_agent_sees_its_lease_expire_before_the_coordinator_does(
    history: list[tuple[bool, float, float, float | None]],
    others: int,
    offset_s: float,
    joining: list[int],
) -> None:
    """`offset_s`: boot clocks begin anywhere. Nodes join meanwhile, so that the lease grows. The first call
    is OpenSession."""
    clock = Clock()
    fleet = Fleet(LeasePolicy(), monotonic=clock)
    for other in range(others):
        fleet.expect(NodeKey(1_000_000 + other))
    agent = LeaseClock(interval_s=5.0, lease_s=0.0, renewed_at_s=offset_s)
    for position, (is_poll, pause, there, back) in enumerate(history):
        clock.now_s += pause
        sent_s = clock.now_s + offset_s
        clock.now_s += there
        if fleet.look().expired:
            assert agent.is_expired(clock.now_s + offset_s), (
                "the coordinator ends no session that the agent believes in"
            )
            return
        told: Timing | None
        if is_poll and position:
            fleet.hear_poll(NODE)
            clock.now_s += back or 0.0
            told = fleet.news_for(NODE)
        else:
            fleet.hear(NODE)
            told = fleet.timing()
        for other in range(joining[position] if position < len(joining) else 0):
            fleet.expect(NodeKey(position * 10_000 + other + 10))
        if back is not None:
            agent = agent.acknowledged(
                sent_at_s=sent_s,
                interval_s=told.heartbeat_interval.total_seconds() if told else agent.interval_s,
                lease_s=told.lease.total_seconds() if told else agent.lease_s,
            )
    end_s = agent.expires_at_s() - offset_s
    # When the agent still believes in its lease, the coordinator does not let it expire.
    clock.now_s = max(clock.now_s, end_s)
    assert NODE not in fleet.look().expired or clock.now_s > end_s
    assert agent.is_expired(clock.now_s + offset_s)
    clock.now_s += NEVER_S
    assert NODE in fleet.look().expired or fleet.is_silent(NODE), "silence is noticed"


@examples(100)
@given(st.lists(st.tuples(delays, st.floats(1, 100), st.floats(1, 300)), min_size=1, max_size=6))
def test_replies_that_overtake_each_other_never_shorten_a_lease(
    replies: list[tuple[float, float, float]],
) -> None:
    clock = LeaseClock(interval_s=5.0, lease_s=15.0, renewed_at_s=0.0)
    newest_s = 0.0
    for sent_at_s, interval_s, lease_s in replies:
        before = clock
        clock = clock.acknowledged(sent_at_s=sent_at_s, interval_s=interval_s, lease_s=lease_s)
        newest_s = max(newest_s, sent_at_s)
        assert clock.renewed_at_s == newest_s
        assert clock == before or clock.renewed_at_s == sent_at_s


@examples(100)
@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_three_heartbeats_fit_into_every_lease_even_with_the_longest_pauses(
    nodes: int, jitter: float
) -> None:
    policy = LeasePolicy()
    interval = heartbeat_interval(policy, nodes=nodes)
    assert policy.shortest_interval <= interval <= policy.longest_interval
    lease = lease_ttl(policy, interval=interval)
    assert lease >= 3 * interval
    assert lease >= policy.shortest_lease
    clock = LeaseClock(interval_s=interval.total_seconds(), lease_s=lease.total_seconds(), renewed_at_s=0.0)
    assert 0.8 * clock.interval_s <= clock.pause_s(jitter=jitter) <= 1.2 * clock.interval_s
    assert 2 * clock.pause_s(jitter=jitter) < clock.lease_s, "one may be lost"
    assert clock.call_deadline_s() * 3 <= max(clock.lease_s, 3.0) + 1e-6
    # Every node is heard in a restarted coordinator before its grace is over, even when one is lost.
    assert 2 * 1.2 * interval < restart_grace(policy) + policy.longest_interval
    assert nodes / interval.total_seconds() <= policy.heartbeats_per_s * 1.000_001 or interval in (
        policy.longest_interval,
        policy.shortest_interval,
    )


@examples(100)
@given(st.timedeltas(timedelta(0), timedelta(days=30)), st.timedeltas(timedelta(0), timedelta(days=30)))
def test_what_is_waited_beyond_a_duration_grows_with_it(shorter: timedelta, longer: timedelta) -> None:
    shorter, longer = sorted((shorter, longer))
    assert timedelta(seconds=2) <= tolerance(shorter) <= tolerance(longer)
    # Clocks may run apart by one percent: both ways that is less than what is waited.
    assert tolerance(longer) >= 0.02 * longer


@examples(100)
@given(
    st.timedeltas(timedelta(seconds=15), timedelta(seconds=180)),
    st.sampled_from([DisconnectPolicy.NO_OVERLAP, DisconnectPolicy.FAST_REPLACE]),
    st.timedeltas(timedelta(0), timedelta(days=30)),
    st.floats(0.99, 1.01),
    delays,
)
def test_without_overlap_the_old_command_is_dead_before_the_new_one_may_start(
    lease: timedelta, disconnect: DisconnectPolicy, outlives: timedelta, rate: float, sent_before_s: float
) -> None:
    """`rate`: how fast the node's clock runs. Silence counts from the last heartbeat that was processed."""
    policy = LeasePolicy()
    killed_at = (lease + outlives + policy.kill_grace) / rate - timedelta(seconds=sent_before_s)
    assert killed_at <= replace_due(policy, lease=lease, disconnect=disconnect, outlives_lease_for=outlives)


@examples(50)
@given(
    st.timedeltas(timedelta(seconds=1), timedelta(hours=1)), st.timedeltas(timedelta(0), timedelta(days=30))
)
def test_keep_going_is_replaced_after_its_own_time_but_never_within_the_lease(
    lease: timedelta, outlives: timedelta
) -> None:
    policy = LeasePolicy()
    due = replace_due(
        policy, lease=lease, disconnect=DisconnectPolicy.KEEP_GOING, outlives_lease_for=outlives
    )
    assert due == max(policy.replace_after, lease + tolerance(lease))
