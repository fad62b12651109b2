"""What the agents' service remembers of nodes is bounded, whoever comes and goes."""

from windlass_coordinator.rpc.node_notes import NodeNotes
from windlass_proto.model.ids import NodeKey


def test_the_nodes_that_called_last_are_remembered() -> None:
    notes = NodeNotes(most=2)
    for key in (1, 2):
        notes.of(NodeKey(key)).audit_due_s = float(key)
    notes.of(NodeKey(1))
    notes.of(NodeKey(3))

    assert len(notes) == 2
    assert notes.of(NodeKey(1)).audit_due_s == 1
    assert notes.of(NodeKey(2)).audit_due_s == 0


def test_a_node_that_left_is_not_remembered() -> None:
    notes = NodeNotes(most=2)
    notes.of(NodeKey(1)).audit_due_s = 7
    notes.drop(NodeKey(1))
    assert len(notes) == 0
