"""What a store knows of machines, credentials and coordinators; a part of `base.Transaction`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from windlass_coordinator.core.records import ClusterKey, JobKey, NodeView, Role, RoleSight
from windlass_proto.errors import Unavailable
from windlass_proto.model.ids import NodeId, NodeKey, TenantId
from windlass_proto.model.states import NodeState
from windlass_proto.model.status import NodeFacts


class RoleLost(Unavailable):
    """Another coordinator has taken the role: this one must not do its duties any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A secret's record; the secret itself is not kept."""

    token_id: str
    kind: str
    digest: str
    tenant: TenantId
    cluster_key: ClusterKey | None = None
    node_key: NodeKey | None = None
    uses_left: int | None = None
    expires_at: datetime | None = None
    revoked: bool = False


class NodeRecords(Protocol):
    """Clusters, nodes, credentials."""

    def incarnation(self) -> int: ...

    def cluster_key(self, tenant: TenantId, name: str) -> ClusterKey | None: ...

    def cluster_names(self, tenant: TenantId) -> list[str]: ...

    def add_cluster(self, tenant: TenantId, name: str, *, description: str, now: datetime) -> ClusterKey: ...

    def delete_cluster(self, cluster_key: ClusterKey) -> None:
        """Nobody can name it or join it any more."""

    def cluster_in_use(self, cluster_key: ClusterKey) -> str | None:
        """What still needs the cluster, in words; None = nothing."""

    def add_node(
        self,
        node_id: NodeId,
        facts: NodeFacts,
        *,
        tenant: TenantId,
        cluster_key: ClusterKey,
        now: datetime,
    ) -> NodeKey: ...

    def node_view(self, node_key: NodeKey) -> NodeView | None: ...

    def open_session(
        self,
        node: NodeView,
        facts: NodeFacts,
        *,
        state_id: str,
        boot_id: str,
        epoch: int,
        nonce: str,
        last_nonce: str,
        now: datetime,
    ) -> None:
        """`nonce` is the newest; `last_nonce` stays good as well until `confirm_session`."""

    def confirm_session(self, node_key: NodeKey) -> None:
        """The node has its newest nonce: the one before opens no session any more."""

    def set_node_state(self, node_key: NodeKey, state: NodeState, *, now: datetime) -> None: ...

    def find_node(self, node_id: NodeId, *, tenant: TenantId) -> NodeView | None:
        """By its id or, when only one has it, its name; not one that is DELETED."""

    def set_node_wish(
        self, node_key: NodeKey, wish: NodeState | None, *, reason: str, drain_by: datetime | None
    ) -> None:
        """See NodeView.wish."""

    def note_prepare_failures(self, node_key: NodeKey, jobs: frozenset[JobKey]) -> None:
        """See NodeView.prepare_failed_jobs."""

    def end_session(self, node: NodeView) -> None:
        """Its agent has to open the next one, and obeys the verdicts on what it has."""

    def bump_heard(self, nodes: Collection[NodeKey]) -> None:
        """These nodes were heard by this coordinator since its last bump."""

    def heard_counts(self) -> dict[NodeKey, int]:
        """Of all nodes that have, or had not long ago, a session."""

    def note_seen(self, seen: Mapping[NodeKey, datetime]) -> None:
        """For display only; no decision uses it."""

    def nodes_in(self, states: Collection[NodeState]) -> list[NodeKey]: ...

    def credential(self, token_id: str) -> Credential | None: ...

    def add_credential(self, credential: Credential, *, now: datetime) -> None: ...

    def use_credential(self, token_id: str) -> None:
        """One use less."""

    def revoke_node_credentials(self, node_key: NodeKey) -> None: ...


class RoleRecords(Protocol):
    """Who of several coordinators does the periodic duties (decision D13)."""

    def role(self, name: str) -> RoleSight | None:
        """As stored; None = never taken."""

    def take_role(self, name: str, holder: str, *, seen: RoleSight | None) -> Role | None:
        """Takes it in a new term, if it is still as `seen`; None = somebody else was faster."""

    def renew_role(self, role: Role) -> bool:
        """Its beat grows; False when it is not ours any more."""

    def check_role(self, role: Role) -> None:
        """Raises RoleLost unless it is held in this very term, until this transaction ends (invariant
        I22)."""
