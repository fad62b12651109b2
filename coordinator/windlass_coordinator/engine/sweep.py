"""What time alone brings about: back-offs end, silent nodes lose their attempts."""

from collections.abc import Callable, Collection
from datetime import datetime

from windlass_coordinator.core.node_lifecycle import Revocation
from windlass_coordinator.core.records import DetachedAttempt, Fact
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.engine.revoke import revoke
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.stores.base import Transaction
from windlass_proto.model.facts import FactKind
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.states import AttemptState, NodeState

# One transaction must stay short; what is left comes with the next one.
_DUE_PER_SWEEP = 5_000

NEVER_CAME = "it joined and never opened a session"
_WITH_SESSION = (NodeState.READY, NodeState.DRAINING, NodeState.DRAINED, NodeState.QUARANTINED)


def ready_due(tx: Transaction, *, policy: RetryPolicy, now: datetime) -> datetime | None:
    """Instances whose back-off is over may be claimed again; returns when to look next."""
    due = tx.due_instances(now=now, limit=_DUE_PER_SWEEP)
    if due:
        tx.wakes.clusters |= tx.make_ready(due, avoid_until=now + policy.avoid_node_for)
    tx.wakes.clusters |= tx.end_avoidance(now=now)
    return tx.next_due()


def mark_silent(tx: Transaction, node_key: NodeKey, *, now: datetime) -> list[DetachedAttempt]:
    """The node's lease is over: its attempts are detached, not lost yet. Returns them."""
    node = tx.node_view(node_key)
    if node is None or node.state not in (*_WITH_SESSION, NodeState.SILENT):
        return []
    if node.state is not NodeState.SILENT:
        tx.set_node_state(node_key, NodeState.SILENT, now=now)
        tx.detach_attempts(node_key)
        tx.add_facts([Fact(kind=FactKind.NODE_SILENT, tenant=node.tenant, node_key=node_key)], now=now)
    return tx.detached_attempts(node_key)


def replace_attempts(
    tx: Transaction,
    node_key: NodeKey,
    *,
    is_due: Callable[[DetachedAttempt], bool],
    rules: Rules,
    now: datetime,
) -> None:
    """The node has been silent for so long that those of its attempts that are due are given to others."""
    node = tx.node_view(node_key)
    if node is None or node.state is not NodeState.SILENT:
        return
    reason = f"node {node.name} has not been heard for too long"
    lost = Revocation(state=AttemptState.LOST, failure=FailureKind.INFRA_NODE_LOST, reason=reason)
    # Nothing was heard of its start, so it costs nothing and says nothing about the instance.
    released = Revocation(state=AttemptState.RELEASED, failure=None, reason=reason)
    due = [detached.held for detached in tx.detached_attempts(node_key) if is_due(detached)]
    revoke(
        tx,
        [(held, released if held.state is AttemptState.LEASED else lost) for held in due],
        rules=rules,
        now=now,
    )


def forget_nodes(tx: Transaction, nodes: Collection[NodeKey], *, now: datetime) -> None:
    """Nodes that were silent for very long, or never opened a session, are GONE. Their credentials stay good:
    should one come after all, it is let in."""
    for node_key in nodes:
        node = tx.node_view(node_key)
        if node is not None and node.state in (NodeState.SILENT, NodeState.JOINING):
            tx.set_node_state(node_key, NodeState.GONE, now=now)
            payload: dict[str, object] = {"reason": NEVER_CAME} if node.state is NodeState.JOINING else {}
            gone = Fact(kind=FactKind.NODE_GONE, tenant=node.tenant, node_key=node_key, payload=payload)
            tx.add_facts([gone], now=now)
