"""Bounds on what is served at once, each with a name, and how urgent each method is (promise P20).

A call beyond a bound is refused before anything is done for it, with a pause that well-behaved callers keep.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from windlass_coordinator.core.overload import OverloadLimits
from windlass_coordinator.stores.lanes import Lane
from windlass_proto.errors import Overloaded
from windlass_proto.model.ids import TenantId

_RETRY_AFTER = timedelta(seconds=1)
_LONGEST_RETRY_AFTER_S = 30.0
_BURST_S = 1.0

_AGENTS = "/windlass.v1.AgentService/"
_JOBS = "/windlass.v1.JobService/"
_CLUSTERS = "/windlass.v1.ClusterService/"
_NODES = "/windlass.v1.NodeService/"
_SECRETS = "/windlass.v1.SecretService/"


class Gate:
    """How many calls of one kind are being served, and how many may be."""

    def __init__(self, name: str, limit: int) -> None:
        """`name` is that of the setting."""
        self.name = name
        self.limit = limit
        self.current = 0
        self.shed = 0

    def enter(self) -> None:
        """Raises Overloaded when there are enough already."""
        if self.current >= self.limit:
            raise self.refusal()
        self.current += 1

    def leave(self) -> None:
        """One call is done."""
        self.current -= 1

    def refusal(self, retry_after: timedelta = _RETRY_AFTER) -> Overloaded:
        """For a call that is one too many."""
        self.shed += 1
        return Overloaded(
            f"too many calls of this kind at once (overload.{self.name} = {self.limit}): "
            f"try again in {retry_after.total_seconds():.0f} s",
            retry_after=retry_after,
        )


class RateGate(Gate):
    """How many calls may begin in a second. The more are refused, the longer each is asked to wait."""

    def __init__(self, name: str, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(name, limit)
        self._clock = clock
        self._seen_at_s = clock()
        self._level = 0.0
        self._refused = 0.0

    def enter(self) -> None:
        now = self._clock()
        drained = (now - self._seen_at_s) * self.limit
        self._seen_at_s = now
        self._level = max(0.0, self._level - drained)
        self._refused = max(0.0, self._refused - drained)
        if self._level >= self.limit * _BURST_S:
            self._refused += 1
            wait_s = min(_LONGEST_RETRY_AFTER_S, 1 + self._refused / self.limit)
            raise self.refusal(timedelta(seconds=wait_s))
        self._level += 1
        self.current = int(self._level)

    def leave(self) -> None:
        """What has begun has been counted."""


class Overload:
    """All gates of one coordinator."""

    def __init__(self, limits: OverloadLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.sessions = Gate("sessions", limits.sessions)
        self.session_rate = RateGate("sessions_per_s", limits.sessions_per_s, clock=clock)
        self.polls = Gate("polls", limits.polls)
        self.agent_calls = Gate("agent_calls", limits.agent_calls)
        self.changes = Gate("changes", limits.changes)
        self.looks = Gate("looks", limits.looks)
        self.followers = Gate("followers", limits.followers)
        self.log_streams = Gate("log_streams", limits.log_streams)
        self._per_tenant_limit = limits.followers_per_tenant
        self._per_tenant: dict[TenantId, Gate] = {}
        self._ways = self._ways_of_methods()

    def way(self, method: str) -> tuple[Lane, tuple[Gate, ...]]:
        """How urgent calls of a method are, and the gates on their way; for a method that is not known here
        those of a change that makes nothing grow."""
        return self._ways.get(method, (Lane.STEER, (self.changes,)))

    @property
    def gates(self) -> tuple[Gate, ...]:
        """All that stand for good."""
        return (
            self.sessions,
            self.session_rate,
            self.polls,
            self.agent_calls,
            self.changes,
            self.looks,
            self.followers,
            self.log_streams,
        )

    @contextmanager
    def following(self, tenant: TenantId) -> Iterator[None]:
        """One stream of this tenant's users. Raises Overloaded when the tenant has enough of them."""
        gate = self._per_tenant.get(tenant)
        if gate is None:
            gate = self._per_tenant[tenant] = Gate("followers_per_tenant", self._per_tenant_limit)
        gate.enter()
        try:
            yield
        finally:
            gate.leave()
            if gate.current == 0:
                self._per_tenant.pop(tenant, None)

    def _ways_of_methods(self) -> Mapping[str, tuple[Lane, tuple[Gate, ...]]]:
        agent = (Lane.VITAL, (self.agent_calls,))
        change = (Lane.CHANGE, (self.changes,))
        look = (Lane.LOOK, (self.looks,))
        follow = (Lane.LOOK, (self.followers,))
        return {
            _AGENTS + "Join": (Lane.CHANGE, (self.session_rate, self.sessions)),
            _AGENTS + "OpenSession": (Lane.VITAL, (self.session_rate, self.sessions)),
            _AGENTS + "Poll": (Lane.VITAL, (self.polls,)),
            _AGENTS + "Report": agent,
            _AGENTS + "Heartbeat": agent,
            _AGENTS + "Release": agent,
            _AGENTS + "CommitOutputs": agent,
            _AGENTS + "FetchSecrets": agent,
            _AGENTS + "Leave": agent,
            _AGENTS + "AppendLog": (Lane.LOG, (self.log_streams,)),
            _JOBS + "SubmitJob": change,
            _JOBS + "RestartJob": change,
            _JOBS + "GetJob": look,
            _JOBS + "GetJobSpec": look,
            _JOBS + "ListJobs": look,
            _JOBS + "ListInstances": look,
            _JOBS + "WatchJob": follow,
            _JOBS + "ReadLog": follow,
            _CLUSTERS + "CreateCluster": change,
            _CLUSTERS + "CreateJoinToken": change,
            _CLUSTERS + "ListClusters": look,
            _NODES + "ListNodes": look,
            _NODES + "GetNode": look,
            _SECRETS + "PutSecret": change,
            _SECRETS + "ListSecrets": look,
        }
