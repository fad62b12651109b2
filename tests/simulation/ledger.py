"""What really happened, kept by nobody in the system: the checks compare the records with it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.world import SimulationFailure, World
from windlass_agent.core.run_plan import ExitRecord
from windlass_proto.model.ids import AttemptRef, JobId, NodeKey
from windlass_proto.model.specs import JobSpec
from windlass_proto.model.states import LogStream

if TYPE_CHECKING:
    from tests.simulation.keeper import Command
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
        self.alive: dict[AttemptRef, Command] = {}
        """Commands that run."""
        self.torn: set[AttemptRef] = set()
        """Their node may have lost what it knew of them: nobody else's output may be given up."""
        self._started_at: dict[AttemptRef, float] = {}
        self.exits: dict[AttemptRef, ExitRecord] = {}
        self.acknowledged: dict[tuple[AttemptRef, LogStream], int] = {}
        self.nodes: dict[NodeKey, Node] = {}
        self.is_wanted: Callable[[AttemptRef], bool] = lambda _: False
        self.restored_at = -1.0
        self._intents: dict[str, set[AttemptRef]] = defaultdict(set)
        self._may_forget: dict[str, set[AttemptRef]] = defaultdict(set)

    # What nodes do

    def node_joined(self, node: "Node", node_key: NodeKey) -> None:
        self.nodes[node_key] = node

    def intent_written(self, node: "Node", refs: Iterable[AttemptRef]) -> None:
        self._intents[node.name].update(refs)

    def command_started(self, command: "Command") -> None:
        node, ref = command.node, command.ref
        self._world.note("command started", node.name, ref)
        self.starts[ref] += 1
        if self.starts[ref] > 1:
            raise SimulationFailure(f"I15: {ref} was started {self.starts[ref]} times")
        if ref not in self._intents[node.name]:
            raise SimulationFailure(f"I15: {ref} was started on {node.name} without an intent")
        self._check_room(command)
        if not command.script.may_overlap:
            self._check_overlap(command)
        self.alive[ref] = command
        self._started_at[ref] = self._world.now

    def _check_room(self, command: "Command") -> None:
        """Slots of the node that living keepers use."""
        node = command.node
        used = [one for one in self.alive.values() if one.node is node and one.keeper.is_alive]
        if len(used) >= node.facts.slots:
            raise SimulationFailure(f"I14: {node.name} has {node.facts.slots} slots and runs {len(used) + 1}")
        given = [name for one in (command, *used) for name in _gpus(one)]
        if len(set(given)) < len(given):
            raise SimulationFailure(f"I14: {node.name} gives a GPU twice: {given}, {command.ref} is the last")

    def _check_overlap(self, command: "Command") -> None:
        """Two at once are a broken promise, unless the keeper that had to prevent it could not."""
        ref = command.ref
        for other in self.alive.values():
            same = (other.ref.task_key, other.ref.index) == (ref.task_key, ref.index)
            is_kept = other.keeper.is_alive and not other.keeper.was_paused
            if same and is_kept and self._started_at[other.ref] > self.restored_at:
                raise SimulationFailure(f"C02: {ref} starts while {other.ref} runs on {other.node.name}")

    def command_ended(self, command: "Command") -> None:
        self._world.note("command ended", command.node.name, command.ref)
        self.alive.pop(command.ref, None)

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
        self.torn |= self._intents[node.name]

    def log_acknowledged(self, ref: AttemptRef, stream: LogStream, end: int) -> None:
        self.acknowledged[ref, stream] = max(end, self.acknowledged.get((ref, stream), 0))

    # What users see

    def restored(self, taken_at: float) -> None:
        """The database is that of `taken_at` again."""
        self.restored_at = self._world.now
        self.acknowledged.clear()
        for job in self.jobs.values():
            if job.job_id is not None and job.acknowledged_at >= taken_at:
                job.is_lost = True


def _gpus(command: "Command") -> list[str]:
    return command.plan.env["WINDLASS_GPUS"].split(",") if command.plan.env["WINDLASS_GPUS"] else []
