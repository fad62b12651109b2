"""Join and OpenSession: who a node is, and what becomes of what it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from windlass_coordinator.core.node_lifecycle import (
    NO_RECORD,
    REBOOTED,
    decide_missing,
    judge_inventory_item,
    nonce_is_good,
)
from windlass_coordinator.core.records import AttemptView, Fact, LogFacts, NodeView
from windlass_coordinator.engine.revoke import ref_of, revoke
from windlass_coordinator.engine.settle import Rules
from windlass_coordinator.stores.base import Transaction
from windlass_coordinator.stores.machines import Credential
from windlass_proto import failpoints
from windlass_proto.errors import Denied, SessionLost
from windlass_proto.model.assignments import InventoryItem, SessionRef, VerdictItem
from windlass_proto.model.facts import FactKind
from windlass_proto.model.ids import AttemptRef, NodeId, NodeKey, TaskKey
from windlass_proto.model.states import AttemptPhase, NodeState
from windlass_proto.model.status import NodeFacts
from windlass_proto.model.verdicts import InventoryVerdict

LogsStored = Callable[[LogFacts], bool]
"""Whether all that a terminal attempt's command wrote is in the log store."""

# In one fact; the count is exact.
_ORPHANS_NAMED = 100
_REFUSED_STATES = (NodeState.DELETED,)
_SESSION_ENDED = (NodeState.JOINING, NodeState.SILENT, NodeState.GONE, NodeState.DELETED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """What a joining node gets; ids and secrets are made by the caller."""

    node_id: NodeId
    credential_kind: str
    credential_id: str
    credential_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A node that wants to begin a session."""

    state_id: str
    boot_id: str
    last_nonce: str
    facts: NodeFacts
    inventory: Sequence[InventoryItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedSession:
    epoch: int
    nonce: str
    verdicts: list[VerdictItem]


def join(tx: Transaction, token: Credential, facts: NodeFacts, new: NewNode, *, now: datetime) -> NodeKey:
    """Makes a node of the token's cluster. Raises Denied for a token that is used up, expired or revoked."""
    current = tx.credential(token.token_id)
    expired = current is None or (current.expires_at is not None and current.expires_at <= now)
    if current is None or expired or current.revoked or not current.uses_left or not current.cluster_key:
        raise Denied("the join token is used up, expired or unknown: make a new one")
    tx.use_credential(token.token_id)
    node_key = tx.add_node(
        new.node_id, facts, tenant=current.tenant, cluster_key=current.cluster_key, now=now
    )
    credential = Credential(
        token_id=new.credential_id,
        kind=new.credential_kind,
        digest=new.credential_digest,
        tenant=current.tenant,
        cluster_key=current.cluster_key,
        node_key=node_key,
    )
    tx.add_credential(credential, now=now)
    tx.add_facts([Fact(kind=FactKind.NODE_JOINED, tenant=current.tenant, node_key=node_key)], now=now)
    return node_key


def open_session(
    tx: Transaction,
    node: NodeView,
    request: OpenRequest,
    *,
    nonce: str,
    logs_stored: LogsStored,
    rules: Rules,
    now: datetime,
) -> GrantedSession:
    """Begins the node's next session. Raises Denied for a copy of the node: its nonce is not the last."""
    _check_identity(node, request)
    epoch = node.epoch + 1
    if _is_said_again(node, request):
        nonce = node.nonce
    tx.open_session(
        node,
        request.facts,
        state_id=request.state_id,
        boot_id=request.boot_id,
        epoch=epoch,
        nonce=nonce,
        # What it has now; every reply with a newer one may be lost.
        last_nonce=request.last_nonce,
        now=now,
    )
    listed = _still_possible(node, request)
    missing = [held for held in tx.held_attempts(node.node_key) if ref_of(held) not in listed]
    reason = REBOOTED if _has_rebooted(node, request) else NO_RECORD
    revoke(tx, [(held, decide_missing(held, reason=reason)) for held in missing], rules=rules, now=now)
    tx.adopt_attempts(node, epoch=epoch)
    views = tx.attempt_views([item.ref for item in request.inventory])
    verdicts = [_verdict(tx, item, views, node, logs_stored) for item in request.inventory]
    _keep_output_due(tx, verdicts, views, epoch=epoch)
    if node.wish is not None:
        tx.set_node_state(node.node_key, node.wish, now=now)
    tx.add_facts(_session_facts(node, request, views), now=now)
    failpoints.reach("coord.session.before_commit")
    return GrantedSession(epoch=epoch, nonce=nonce, verdicts=verdicts)


def _keep_output_due(
    tx: Transaction,
    verdicts: Sequence[VerdictItem],
    views: Mapping[tuple[TaskKey, int, int], AttemptView],
    *,
    epoch: int,
) -> None:
    """An ended attempt whose node comes back without it is one whose output will never be whole."""
    due = [
        item.ref
        for item in verdicts
        if item.verdict is InventoryVerdict.REPORT
        and views[item.ref.task_key, item.ref.index, item.ref.attempt].state.is_terminal
    ]
    if due:
        tx.keep_output_due(due, epoch=epoch)


def _still_possible(node: NodeView, request: OpenRequest) -> set[AttemptRef]:
    """Attempts of the inventory that may be alive or have a result: after a reboot only an exit record is
    proof of anything, whatever the agent makes of the rest."""
    rebooted = _has_rebooted(node, request)
    return {item.ref for item in request.inventory if item.has_exit or not rebooted}


def _has_rebooted(node: NodeView, request: OpenRequest) -> bool:
    return bool(node.boot_id) and node.boot_id != request.boot_id


def _check_identity(node: NodeView, request: OpenRequest) -> None:
    if node.state in _REFUSED_STATES:
        raise Denied(f"node {node.node_id} was deleted: join again")
    if node.epoch and not nonce_is_good(request.last_nonce, current=node.nonce, previous=node.last_nonce):
        raise Denied(
            f"another copy of node {node.node_id} has opened a session since: "
            "stop one of them, remove its state directory and let it join as a node of its own"
        )


def _is_said_again(node: NodeView, request: OpenRequest) -> bool:
    """The same OpenSession was carried out before, and no call has used its answer: any of the answers may be
    the one that arrives, so all of them have the same nonce."""
    return bool(node.nonce) and request.last_nonce == node.last_nonce != node.nonce


def _session_facts(
    node: NodeView, request: OpenRequest, views: Mapping[tuple[TaskKey, int, int], AttemptView]
) -> list[Fact]:
    orphans = [
        item.ref
        for item in request.inventory
        if (item.ref.task_key, item.ref.index, item.ref.attempt) not in views
    ]
    facts = [Fact(kind=FactKind.NODE_READY, tenant=node.tenant, node_key=node.node_key)]
    if orphans:
        told = [[ref.task_key, ref.index, ref.attempt, ref.fence] for ref in orphans[:_ORPHANS_NAMED]]
        payload: dict[str, object] = {"count": len(orphans), "refs": told}
        facts.append(
            Fact(kind=FactKind.ATTEMPT_ORPHANED, tenant=node.tenant, node_key=node.node_key, payload=payload)
        )
    return facts


def _verdict(
    tx: Transaction,
    item: InventoryItem,
    views: dict[tuple[TaskKey, int, int], AttemptView],
    node: NodeView,
    logs_stored: LogsStored,
) -> VerdictItem:
    ref = item.ref
    view = views.get((ref.task_key, ref.index, ref.attempt))
    facts = tx.attempt_log_facts(ref) if view is not None and view.state.is_terminal else None
    stored = facts is None or logs_stored(facts)
    # Lost with its keeper, say: a result without an exit record, which may not be on record here.
    has_ended = item.has_exit or item.phase is AttemptPhase.ENDED
    verdict = judge_inventory_item(view, ref, node_key=node.node_key, has_ended=has_ended, logs_stored=stored)
    return VerdictItem(ref=ref, verdict=verdict, from_seq=1)


def current_node(tx: Transaction, node_key: NodeKey, session: SessionRef) -> NodeView:
    """The node, if `session` is its current one; raises SessionLost otherwise (invariant I18).

    A node that has been silent must open a new session too: only its inventory tells what it may keep.
    """
    node = tx.node_view(node_key)
    if node is None or not node.nonce or (node.epoch, node.nonce) != (session.node_epoch, session.nonce):
        raise SessionLost("this session is not the node's current one: open a new one")
    if node.state in _SESSION_ENDED:
        raise SessionLost(f"this node is {node.state}: open a new session")
    if node.last_nonce != node.nonce:
        # It has the newest nonce, so whoever comes with the one before is a copy of it.
        tx.confirm_session(node_key)
    return node


def leave(tx: Transaction, node: NodeView, *, reason: str = "", rules: Rules, now: datetime) -> None:
    """The node stops for good: what it still has is given to others, without any wait."""
    held = tx.held_attempts(node.node_key)
    revoke(tx, [(attempt, decide_missing(attempt)) for attempt in held], rules=rules, now=now)
    tx.set_node_state(node.node_key, NodeState.GONE, now=now)
    tx.revoke_node_credentials(node.node_key)
    payload: dict[str, object] = {"reason": reason} if reason else {}
    gone = Fact(kind=FactKind.NODE_GONE, tenant=node.tenant, node_key=node.node_key, payload=payload)
    tx.add_facts([gone], now=now)
