"""What time alone brings about: back-offs end, silent nodes lose their attempts."""

from collections.abc import Collection
from datetime import datetime

from windlass_coordinator.core.node_lifecycle import Revocation
from windlass_coordinator.core.records import Fact
from windlass_coordinator.engine.revoke import revoke
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.stores.base import Transaction
from windlass_proto.model.facts import FactKind
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.states import AttemptState, NodeState

# One transaction must stay short; what is left comes with the next one.
_DUE_PER_SWEEP = 5_000


def ready_due(tx: Transaction, *, now: datetime) -> datetime | None:
    """Instances whose back-off is over may be claimed again; returns when the next one is."""
    due = tx.due_instances(now=now, limit=_DUE_PER_SWEEP)
    if due:
        tx.wakes.clusters |= tx.make_ready(due)
    return tx.next_due()


def mark_silent(tx: Transaction, node_key: NodeKey, *, now: datetime) -> None:
    """The node's lease is over: its attempts are detached, not lost yet."""
    node = tx.node_view(node_key)
    if node is None or node.state not in (NodeState.READY, NodeState.DRAINING):
        return
    tx.set_node_state(node_key, NodeState.SILENT, now=now)
    tx.detach_attempts(node_key)
    tx.add_facts([Fact(kind=FactKind.NODE_SILENT, tenant=node.tenant, node_key=node_key)], now=now)


def replace_attempts(tx: Transaction, node_key: NodeKey, *, rules: Rules, now: datetime) -> None:
    """The node has been silent for so long that its attempts are given to others."""
    node = tx.node_view(node_key)
    if node is None or node.state is not NodeState.SILENT:
        return
    lost = Revocation(
        state=AttemptState.LOST,
        failure=FailureKind.INFRA_NODE_LOST,
        reason=f"node {node.name} has not been heard for too long",
    )
    held = tx.held_attempts(node_key)
    revoke(tx, [(attempt, lost) for attempt in held], rules=rules, now=now)


def forget_nodes(tx: Transaction, nodes: Collection[NodeKey], *, now: datetime) -> None:
    """Nodes that were silent for very long are GONE."""
    for node_key in nodes:
        node = tx.node_view(node_key)
        if node is not None and node.state is NodeState.SILENT:
            tx.set_node_state(node_key, NodeState.GONE, now=now)
            tx.add_facts([Fact(kind=FactKind.NODE_GONE, tenant=node.tenant, node_key=node_key)], now=now)
