"""How often nodes must be heard, and when silence means something (protocol.md, sections 6 and 7)."""

from dataclasses import dataclass
from datetime import timedelta

from windlass_proto.model.assignments import QuietTiming, Timing
from windlass_proto.model.specs import DisconnectPolicy

_FIRST_POLL = 1
_QUIET_POLL = 0.45
"""Of a lease: its reply renews the lease from its sending, and the reply to the next one is in time yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasePolicy:
    """All durations are on the coordinator's own monotonic clock."""

    heartbeats_per_s: float = 500.0
    """What the whole fleet may send; the interval grows with the number of nodes."""
    shortest_interval: timedelta = timedelta(seconds=5)
    longest_interval: timedelta = timedelta(seconds=60)
    shortest_lease: timedelta = timedelta(seconds=15)
    quiet_interval: timedelta = timedelta(minutes=5)
    """From one heartbeat to the next of a node that has no attempt; its polls show that it lives."""
    returns_per_s: float = 300.0
    """Nodes that are to come back in a second when all have lost the coordinator."""
    replace_after: timedelta = timedelta(minutes=5)
    """Silence after which a node's attempts are given to others, when their tasks say keep_going."""
    kill_grace: timedelta = timedelta(seconds=30)
    """Longest time that an agent may take from SIGTERM to SIGKILL when a lease has ended."""
    restart_grace: timedelta | None = None
    """After its own start so long a coordinator lets no lease expire; not given = by the longest interval."""
    accept_deadline: timedelta = timedelta(minutes=5)
    """An attempt that was leased so long ago and not heard of since is asked for."""
    forget_after: timedelta = timedelta(hours=24)
    """Silence after which a node is GONE."""
    forget_joining_after: timedelta = timedelta(hours=1)
    """A node that joined so long ago and never opened a session is GONE: the answer to its Join was lost."""
    poll_wait: timedelta = timedelta(seconds=30)


def heartbeat_interval(policy: LeasePolicy, *, nodes: int) -> timedelta:
    """Grows with the fleet between its two bounds."""
    wanted = timedelta(seconds=nodes / policy.heartbeats_per_s)
    return min(policy.longest_interval, max(policy.shortest_interval, wanted))


def poll_wait(longest: timedelta, *, asked: timedelta | None, poll_seq: int, jitter: float) -> timedelta:
    """How long a poll is parked; `jitter` is in [0, 1).

    The first of a session ends at any time: nodes that came together, after a restart say, would else poll
    together for ever.
    """
    wait = longest if asked is None else min(longest, asked)
    return jitter * wait if poll_seq == _FIRST_POLL else wait


def lease_ttl(policy: LeasePolicy, *, interval: timedelta) -> timedelta:
    """Three intervals, but not less than the shortest lease."""
    return max(policy.shortest_lease, 3 * interval)


def timing_for(policy: LeasePolicy, *, nodes: int) -> Timing:
    """What the agents of a fleet of this size are told to keep to."""
    interval = heartbeat_interval(policy, nodes=nodes)
    lease = lease_ttl(policy, interval=interval)
    return Timing(
        heartbeat_interval=interval,
        lease=lease,
        poll_wait=policy.poll_wait,
        kill_grace=policy.kill_grace,
        # A fleet that comes back within a second needs no order.
        reconnect_within=timedelta(seconds=nodes // policy.returns_per_s),
        quiet=QuietTiming(
            poll_wait=min(policy.poll_wait, _QUIET_POLL * lease), interval=policy.quiet_interval
        ),
    )


def tolerance(duration: timedelta) -> timedelta:
    """What the coordinator waits beyond a lease, so that the agent's view of it always ends first."""
    return max(timedelta(seconds=2), 0.02 * duration)


def replace_due(
    policy: LeasePolicy, *, lease: timedelta, disconnect: DisconnectPolicy, outlives_lease_for: timedelta
) -> timedelta:
    """Silence of a node after which an attempt is given to another one (protocol.md, section 6)."""
    expired = lease + tolerance(lease)
    if disconnect is DisconnectPolicy.KEEP_GOING:
        return max(policy.replace_after, expired)
    # The node's own clock may run slower; it has been told when to kill, and how long that may take.
    ended = outlives_lease_for + policy.kill_grace
    return expired + ended + tolerance(ended)


def restart_grace(policy: LeasePolicy) -> timedelta:
    """How long after its own start a coordinator lets no lease expire."""
    if policy.restart_grace is not None:
        return policy.restart_grace
    return max(timedelta(seconds=60), 2 * policy.longest_interval + timedelta(seconds=10))
