"""What is remembered of a node between its calls; nothing of it is needed, it saves queries and words."""

from collections import OrderedDict
from dataclasses import dataclass

from windlass_coordinator.core.records import ClusterKey
from windlass_proto.model.ids import AttemptRef, NodeKey
from windlass_proto.model.resources import NodeCapacity


@dataclass(slots=True, eq=False)
class NodeNote:
    """Of one node."""

    place: tuple[ClusterKey, NodeCapacity] | None = None
    """A node never changes its cluster, and its size only with a new session; None = to be looked up."""
    told_stops: frozenset[AttemptRef] = frozenset()
    """Stops that its session has been told already."""
    audit_due_s: float = 0.0
    """On the event loop's clock."""


class NodeNotes:
    """Of the nodes that called last; `most` of them."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._notes: OrderedDict[NodeKey, NodeNote] = OrderedDict()

    def __len__(self) -> int:
        return len(self._notes)

    def of(self, node_key: NodeKey) -> NodeNote:
        """The node's note, a blank one when there is none."""
        note = self._notes.get(node_key)
        if note is not None:
            self._notes.move_to_end(node_key)
            return note
        note = self._notes[node_key] = NodeNote()
        if len(self._notes) > self._most:
            self._notes.popitem(last=False)
        return note

    def drop(self, node_key: NodeKey) -> None:
        """The node has left."""
        self._notes.pop(node_key, None)
