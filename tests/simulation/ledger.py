"""What really happened, kept by nobody in the system: the checks compare the records with it."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.world import SimulationFailure, World
from windlass_agent.core.run_plan import ExitRecord
from windlass_proto.model.ids import AttemptRef, JobId, NodeKey
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import LogStream

if TYPE_CHECKING:
    from tests.simulation.node import Node


@dataclass(slots=True)
class Submitted:
    """A job as its user knows it."""

    spec: JobSpec
    key: str
    job_id: JobId | None = None
    acknowledged_at: float = 0.0
    steered: set[str] = field(default_factory=set)
    """Verbs that were tried on it."""
    is_lost: bool = False
    """Accepted after the backup that was restored since."""


class Ledger:
    def __init__(self, world: World) -> None:
        self._world = world
        self.jobs: dict[str, Submitted] = {}
        """By idempotency key."""
        self.starts: Counter[AttemptRef] = Counter()
        self.alive: dict[AttemptRef, str] = {}
        """Commands that run, with the name of their node."""
        self.exits: dict[AttemptRef, ExitRecord] = {}
        self.acknowledged: dict[tuple[AttemptRef, LogStream], int] = {}
        self.nodes: dict[NodeKey, Node] = {}
        self.is_wanted: IsWanted = lambda _: False
        self.restored_at = -1.0
        self._intents: dict[str, set[AttemptRef]] = defaultdict(set)
        self._may_forget: dict[str, set[AttemptRef]] = defaultdict(set)

    # What nodes do

    def node_joined(self, node: "Node", node_key: NodeKey) -> None:
        self.nodes[node_key] = node

    def intent_written(self, node: "Node", refs: Iterable[AttemptRef]) -> None:
        self._intents[node.name].update(refs)

    def command_started(self, node: "Node", ref: AttemptRef) -> None:
        self._world.note("command started", node.name, ref)
        self.starts[ref] += 1
        if self.starts[ref] > 1:
            raise SimulationFailure(f"I15: {ref} was started {self.starts[ref]} times")
        if ref not in self._intents[node.name]:
            raise SimulationFailure(f"I15: {ref} was started on {node.name} without an intent")
        self.alive[ref] = node.name

    def command_ended(self, node: "Node", ref: AttemptRef) -> None:
        self._world.note("command ended", node.name, ref)
        self.alive.pop(ref, None)

    def exit_recorded(self, node: "Node", record: ExitRecord) -> None:
        self._world.note("exit recorded", node.name, record.ref, record.code, record.signal, record.reason)
        if record.ref in self.alive:
            raise SimulationFailure(f"P22: {record.ref} has an exit record and runs")
        self.exits[record.ref] = record

    def may_forget(self, node: "Node", refs: Iterable[AttemptRef]) -> None:
        self._may_forget[node.name].update(refs)

    def attempt_let_go(self, node: "Node", ref: AttemptRef) -> None:
        """The agent deletes what it has of the attempt."""
        self._world.note("let go", node.name, ref)
        if ref in self.alive:
            raise SimulationFailure(f"I16: {node.name} deletes {ref}, which runs")
        if ref in self.exits and ref not in self._may_forget[node.name] and self.is_wanted(ref):
            raise SimulationFailure(f"I17: {node.name} deletes {ref} without having been told FORGET")

    def disk_wiped(self, node: "Node") -> None:
        self._intents.pop(node.name, None)

    def intents_torn(self, node: "Node") -> None:
        """A power loss: what its journal does not name any more, its agent must not believe."""
        self._may_forget[node.name] |= self._intents[node.name]

    def log_acknowledged(self, ref: AttemptRef, stream: LogStream, end: int) -> None:
        self.acknowledged[ref, stream] = max(end, self.acknowledged.get((ref, stream), 0))

    # What users see

    def restored(self, taken_at: float) -> None:
        """The database is that of `taken_at` again."""
        self.restored_at = self._world.now
        for job in self.jobs.values():
            if job.job_id is not None and job.acknowledged_at >= taken_at:
                job.is_lost = True


IsWanted = object
