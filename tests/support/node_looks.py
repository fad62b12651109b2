"""What specs of nodes look at, and the time that passes between two tries."""

from datetime import timedelta

from tests.support.builders import Machine
from tests.support.coordinator import InMemoryCoordinator


def state_of(coordinator: InMemoryCoordinator, node: Machine) -> str:
    return str(coordinator.rows("SELECT state FROM nodes WHERE node_key = ?", node.key)[0][0])


def kinds(coordinator: InMemoryCoordinator, node: Machine) -> list[str]:
    """Of the node's own facts, in their order."""
    rows = coordinator.rows("SELECT kind FROM facts WHERE node_key = ? ORDER BY seq", node.key)
    return [row[0] for row in rows if row[0].startswith("node.")]


def back_off_ends(coordinator: InMemoryCoordinator) -> None:
    coordinator.later(timedelta(minutes=5))
    coordinator.ready_due()
