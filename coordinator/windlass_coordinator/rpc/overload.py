"""Which bounds stand on the way of each method, and how urgent it is (promise P20).

A call beyond a bound is refused before anything is done for it, with a pause that well-behaved callers keep.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from windlass_coordinator.core.overload import OverloadLimits
from windlass_coordinator.rpc.gates import Gate, LineAtTheGate, PacedGate, RateGate
from windlass_coordinator.stores.lanes import Lane
from windlass_proto.model.ids import TenantId

_AGENTS = "/windlass.v1.AgentService/"
_JOBS = "/windlass.v1.JobService/"
_CLUSTERS = "/windlass.v1.ClusterService/"
_NODES = "/windlass.v1.NodeService/"
_SECRETS = "/windlass.v1.SecretService/"


class Overload:
    """All gates of one coordinator."""

    def __init__(self, limits: OverloadLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        line = LineAtTheGate(clock=clock)
        sessions = PacedGate(
            "sessions", limits.sessions, line=line, fastest_per_s=limits.sessions_per_s, clock=clock
        )
        self.session_rate = RateGate(
            "sessions_per_s",
            limits.sessions_per_s,
            line=line,
            rate_per_s=lambda: sessions.rate_per_s,
            clock=clock,
        )
        self.sessions = sessions
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
