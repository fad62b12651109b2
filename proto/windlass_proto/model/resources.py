"""What an instance needs and what a node has."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Needs of one instance."""

    cpu: float = 0.0
    """Cores; 0 = no claim."""
    memory_bytes: int = 0
    """0 = no claim and no limit."""
    slots: int = 1
    gpus: int = 0
    pids: int = 0
    """Most processes and threads at a time; 0 = the node's own limit."""
    open_files: int = 0
    """Most open files of a process; 0 = the node's own limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCapacity:
    """All that a node has."""

    cpu: float
    memory_bytes: int
    slots: int
    gpus: int = 0

    def could_ever_fit(self, needs: Resources) -> bool:
        """Whether the node, if idle, could run one instance with these needs."""
        return (
            needs.slots <= self.slots
            and needs.cpu <= self.cpu
            and needs.memory_bytes <= self.memory_bytes
            and needs.gpus <= self.gpus
        )
