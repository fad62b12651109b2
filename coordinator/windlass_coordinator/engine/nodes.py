"""Nodes as their operators and their own failures steer them: drain, resume, quarantine; and the audit."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from windlass_coordinator.core.node_lifecycle import Revocation, decide_missing
from windlass_coordinator.core.records import Fact, JobKey, NodeView
from windlass_coordinator.engine.claim import look_again
from windlass_coordinator.engine.revoke import ref_of, revoke
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.stores.base import Transaction
from windlass_proto.errors import Conflict, NotFound
from windlass_proto.model.facts import FactKind
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, NodeId, NodeKey, TenantId
from windlass_proto.model.specs import DisconnectPolicy
from windlass_proto.model.states import AttemptState, NodeState

# One heartbeat's reply must stay small; what is left is asked for with the next one.
_AUDIT_MOST = 200

_HAS_SESSION = (NodeState.READY, NodeState.DRAINING, NodeState.DRAINED, NodeState.QUARANTINED)


def drain(
    tx: Transaction, tenant: TenantId, node_id: NodeId, *, within: timedelta | None, now: datetime
) -> NodeId:
    """No new work for the node. What still runs after `within` is given to others (None = never). Raises
    NotFound, and Conflict for a node that is gone."""
    node = find_node(tx, tenant, node_id)
    if node.state is NodeState.GONE:
        raise Conflict(f"node {node.node_id} is gone: there is nothing to drain")
    tx.set_node_wish(
        node.node_key,
        NodeState.DRAINING,
        reason="drained by its operator",
        drain_by=None if within is None else now + within,
    )
    if node.state in _HAS_SESSION:
        tx.set_node_state(node.node_key, NodeState.DRAINING, now=now)
    _record(tx, FactKind.NODE_DRAINING, node, now=now)
    settle_drain(tx, node.node_key, now=now)
    return node.node_id


def resume(tx: Transaction, tenant: TenantId, node_id: NodeId, *, now: datetime) -> NodeId:
    """A draining, drained or quarantined node takes work again; for any other nothing changes."""
    node = find_node(tx, tenant, node_id)
    if node.wish is None:
        return node.node_id
    tx.set_node_wish(node.node_key, None, reason="", drain_by=None)
    tx.note_prepare_failures(node.node_key, frozenset())
    if node.state in _HAS_SESSION:
        tx.set_node_state(node.node_key, NodeState.READY, now=now)
        tx.wakes.nodes.add(node.node_key)
    _record(tx, FactKind.NODE_RESUMED, node, now=now)
    return node.node_id


def note_trouble(tx: Transaction, node: NodeView, trouble: str) -> None:
    """What the node says keeps it from its work, "" = nothing; a drain or a quarantine is a better reason."""
    if node.wish is None and node.reason != trouble:
        tx.set_node_wish(node.node_key, None, reason=trouble, drain_by=None)


def settle_drain(tx: Transaction, node_key: NodeKey, *, now: datetime) -> bool:
    """A draining node on which nothing runs any more is DRAINED; True when it is."""
    node = tx.node_view(node_key)
    if node is None or node.state is not NodeState.DRAINING or tx.held_attempts(node_key):
        return False
    tx.set_node_state(node_key, NodeState.DRAINED, now=now)
    _record(tx, FactKind.NODE_DRAINED, node, now=now)
    return True


def end_drain(tx: Transaction, node_key: NodeKey, *, rules: Rules, now: datetime) -> None:
    """The time that a draining node was given is over: what it still has is given to others. What must not
    overlap with its next attempt is given when the node has ended it (`attempts_to_end`)."""
    node = tx.node_view(node_key)
    if node is None or not is_drain_over(node, now=now):
        return
    attempts = tx.detached_attempts(node_key)
    held = [one.held for one in attempts if one.disconnect is DisconnectPolicy.KEEP_GOING]
    if not held:
        return
    revoke(
        tx,
        [(h, _DRAINED_NODE if h.state is not AttemptState.LEASED else decide_missing(h)) for h in held],
        rules=rules,
        now=now,
    )
    # It must end what it has, and hears that from the verdicts of its next session.
    tx.end_session(node)
    settle_drain(tx, node_key, now=now)


def is_drain_over(node: NodeView, *, now: datetime) -> bool:
    """Whether a draining node has had the time that it was given."""
    return node.state is NodeState.DRAINING and node.drain_by is not None and node.drain_by <= now


def attempts_to_end(tx: Transaction, node: NodeView, *, now: datetime) -> list[AttemptRef]:
    """What the node is told to end: what was stopped, and at the end of a drain what others may only have
    when it is known to have ended."""
    stopping = tx.stopping_attempts(node.node_key)
    if not is_drain_over(node, now=now):
        return stopping
    held = [(ref_of(one.held), one.disconnect) for one in tx.detached_attempts(node.node_key)]
    careful = [ref for ref, disconnect in held if disconnect is not DisconnectPolicy.KEEP_GOING]
    return list(dict.fromkeys(stopping + careful))


DRAINED = "its node was drained, and its time was over"
_DRAINED_NODE = Revocation(state=AttemptState.LOST, failure=FailureKind.PREEMPTED, reason=DRAINED)


def note_prepare_failures(
    tx: Transaction, node: NodeView, jobs: frozenset[JobKey], *, started: bool, rules: Rules, now: datetime
) -> None:
    """A node that fails to prepare attempts of one job after the other is to blame itself: quarantine."""
    failed = jobs if started else node.prepare_failed_jobs | jobs
    if failed == node.prepare_failed_jobs:
        return
    tx.note_prepare_failures(node.node_key, failed)
    if len(failed) < rules.retry.quarantine_jobs or node.wish is not None:
        return
    reason = f"could not prepare attempts of {len(failed)} jobs in a row"
    tx.set_node_wish(node.node_key, NodeState.QUARANTINED, reason=reason, drain_by=None)
    tx.set_node_state(node.node_key, NodeState.QUARANTINED, now=now)
    _record(tx, FactKind.NODE_QUARANTINED, node, reason=reason, now=now)


def attempts_to_audit(
    tx: Transaction, node: NodeView, *, accept_deadline: timedelta, now: datetime
) -> list[AttemptRef]:
    """What the node was given long ago and has told nothing of: it is asked whether it has it. So is what was
    given at a time that is yet to come, or a clock that was set back would keep it waiting."""
    return tx.unheard_attempts(
        node.node_key, since=now - accept_deadline, until=now + accept_deadline, limit=_AUDIT_MOST
    )


def settle_missing(
    tx: Transaction, node: NodeView, missing: Sequence[AttemptRef], *, rules: Rules, now: datetime
) -> None:
    """The node says that it does not have these: they go on elsewhere."""
    if not missing:
        return
    held = {ref_of(attempt): attempt for attempt in tx.held_attempts(node.node_key)}
    gone = [held[ref] for ref in dict.fromkeys(missing) if ref in held]
    revoke(tx, [(attempt, decide_missing(attempt)) for attempt in gone], rules=rules, now=now)
    look_again(tx, node)


def settle_never_arrived(
    tx: Transaction, node: NodeView, *, poll_seq: int, rules: Rules, now: datetime
) -> None:
    """The node had nothing when it sent this poll: what was leased to polls before it and is not heard of yet
    was lost on its way."""
    settle_missing(tx, node, tx.leased_before(node, poll_seq=poll_seq), rules=rules, now=now)


def find_node(tx: Transaction, tenant: TenantId, node_id: NodeId) -> NodeView:
    """By id or by a name that only one has; raises NotFound, with the same words for somebody else's."""
    node = tx.find_node(node_id, tenant=tenant)
    if node is None:
        raise NotFound(f"there is no node {node_id}, or more than one has this name: give its id")
    return node


def _record(tx: Transaction, kind: FactKind, node: NodeView, *, now: datetime, reason: str = "") -> None:
    payload: dict[str, object] = {"reason": reason} if reason else {}
    fact = Fact(kind=kind, tenant=node.tenant, node_key=node.node_key, payload=payload)
    tx.add_facts([fact], now=now)
