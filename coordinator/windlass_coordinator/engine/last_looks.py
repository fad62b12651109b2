"""What the last looks at the store have told, so that idle nodes cost none (protocol.md, C5).

A heartbeat of a node that there is nothing to tell, and a poll of one for which there is no work, change
nothing. They are answered from here as long as no commit has changed what was seen: whoever changes a node or
readies work says so in its `Wakes`. Only good for a coordinator through which all changes go.
"""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from windlass_coordinator.core.records import ClusterKey, NodeView
from windlass_coordinator.stores.base import Transaction
from windlass_proto.model.assignments import SessionRef
from windlass_proto.model.ids import NodeKey
from windlass_proto.model.resources import NodeCapacity
from windlass_proto.model.states import NodeState

# Both only bound what a forgotten wake-up could cost; with it nodes of one size share one look.
_NODE_SEEN_FOR = timedelta(minutes=5)
_WORK_SEEN_FOR = timedelta(seconds=30)

# An instance avoids one node at most: what two have not found is not there.
_TELL_FOR_ALL = 2

_EVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(slots=True, eq=False)
class _NodeSeen:
    """There was nothing to tell this session, and no assignment that it has told nothing of."""

    epoch: int
    nonce: str
    reason: str
    until_s: float
    is_committed: bool = False


@dataclass(slots=True, eq=False)
class _WorkSeen:
    """There was no work left for machines of one size of one cluster."""

    until_s: float
    nodes: set[NodeKey] = field(default_factory=set)
    """Who has looked, in commits that were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookCommitted:
    """Implements `stores.base.Delivery`: what was seen in a commit holds when it is made, and not before."""

    node_key: NodeKey
    node_seen: _NodeSeen | None
    work_seen: _WorkSeen | None

    def __call__(self) -> None:
        if self.node_seen is not None:
            self.node_seen.is_committed = True
        if self.work_seen is not None:
            self.work_seen.nodes.add(self.node_key)

    def take_back(self) -> None:
        """It was never told."""


class LastLooks:
    """Written inside commits, asked on the event loop. `monotonic` gives seconds."""

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._nodes: dict[NodeKey, _NodeSeen] = {}
        self._work: dict[ClusterKey, dict[NodeCapacity, _WorkSeen]] = {}

    def is_quiet(self, node_key: NodeKey, *, epoch: int, nonce: str) -> bool:
        """Whether this is the node's session still and there is nothing to tell it."""
        return self._node(node_key, epoch, nonce) is not None

    def is_quiet_with(self, node_key: NodeKey, session: SessionRef, *, reason: str) -> bool:
        """The same, and the node says nothing new of why it takes no work."""
        seen = self._node(node_key, session.node_epoch, session.nonce)
        return seen is not None and seen.reason == reason

    def has_no_work(self, node_key: NodeKey, cluster_key: ClusterKey, capacity: NodeCapacity) -> bool:
        """Whether no work has come since this node, or two of its size, found none."""
        if capacity.gpus:  # what one finds depends on what it runs
            return False
        with self._lock:
            seen = self._work.get(cluster_key, {}).get(capacity)
            if seen is None or self._monotonic() > seen.until_s:
                return False
            return node_key in seen.nodes or len(seen.nodes) >= _TELL_FOR_ALL

    def note(self, tx: Transaction, node: NodeView, *, wanted: int, found: int) -> LookCommitted | None:
        """After a look for a node that is told no stops; inside a commit."""
        if node.state is not NodeState.READY or node.wish is not None:
            return None
        with self._lock:
            node_seen = self._note_node(tx, node) if not found else None
            work_seen = self._note_work(node) if found < wanted else None
        return LookCommitted(node_key=node.node_key, node_seen=node_seen, work_seen=work_seen)

    def forget(self, *, nodes: Collection[NodeKey], clusters: Collection[ClusterKey] = ()) -> None:
        """These nodes are to be told something, or have changed; these clusters have work."""
        with self._lock:
            for node_key in nodes:
                self._nodes.pop(node_key, None)
            for cluster_key in clusters:
                self._work.pop(cluster_key, None)

    def forget_all(self) -> None:
        """Nobody knows any more what has changed."""
        with self._lock:
            self._nodes.clear()
            self._work.clear()

    def _node(self, node_key: NodeKey, epoch: int, nonce: str) -> _NodeSeen | None:
        seen = self._nodes.get(node_key)
        if seen is None or not seen.is_committed or self._monotonic() > seen.until_s:
            return None
        return seen if (seen.epoch, seen.nonce) == (epoch, nonce) else None

    def _note_node(self, tx: Transaction, node: NodeView) -> _NodeSeen | None:
        self._nodes.pop(node.node_key, None)
        unconfirmed = node.last_nonce != node.nonce
        if unconfirmed or tx.unheard_attempts(node.node_key, since=_EVER, until=_EVER, limit=1):
            return None
        until_s = self._monotonic() + _NODE_SEEN_FOR.total_seconds()
        seen = self._nodes[node.node_key] = _NodeSeen(node.epoch, node.nonce, node.reason, until_s)
        return seen

    def _note_work(self, node: NodeView) -> _WorkSeen:
        sizes = self._work.setdefault(node.cluster_key, {})
        seen = sizes.get(node.capacity)
        now_s = self._monotonic()
        if seen is None or now_s > seen.until_s:
            seen = sizes[node.capacity] = _WorkSeen(now_s + _WORK_SEEN_FOR.total_seconds())
        return seen
