"""Builders of what the coordinator's tests give to it: jobs, machines, what machines tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from windlass_coordinator.core.records import Claimed
from windlass_proto.model.assignments import InventoryItem, SessionRef
from windlass_proto.model.events import AttemptEvent, Exited, Happening
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import (
    AttemptRef,
    ClusterName,
    Fence,
    NodeId,
    NodeKey,
    TaskName,
)
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec
from windlass_proto.model.states import AttemptPhase
from windlass_proto.model.status import NodeFacts


def a_task(name: str = "task", *, after: Sequence[str] = (), **more: Any) -> TaskSpec:
    """A task of one instance that waits for nothing; `more` are fields of TaskSpec."""
    return TaskSpec(
        name=TaskName(name),
        command=Argv(args=("true",)),
        after=tuple(TaskName(parent) for parent in after),
        **more,
    )


def a_job(*tasks: TaskSpec, name: str = "job", **more: Any) -> JobSpec:
    """A job of one task, or of those given; `more` are fields of JobSpec."""
    return JobSpec(name=name, tasks=tasks or (a_task(),), **more)


def exits(code: int = 0, **more: Any) -> Exited:
    """What a keeper records; a code other than 0 is the user's failure."""
    kind = None if code == 0 else FailureKind.USER_EXIT
    return Exited(**{"code": code, "signal": None, "kind": kind, "ran_for_us": 1_000, **more})


def told(ref: AttemptRef, what: Happening, *, seq: int = 1) -> AttemptEvent:
    return AttemptEvent(ref=ref, seq=seq, what=what)


def holds(ref: AttemptRef, *, has_exit: bool = False) -> InventoryItem:
    """A line of an agent's inventory."""
    phase = AttemptPhase.ENDED if has_exit else AttemptPhase.RUNNING
    return InventoryItem(ref=ref, phase=phase, seq=1, has_exit=has_exit)


def node_facts(
    *, name: str = "node", slots: int = 1, cpu: float = 1, memory_bytes: int = 1 << 30, gpus: int = 0
) -> NodeFacts:
    return NodeFacts(
        name=name,
        slots=slots,
        cpu=cpu,
        memory_bytes=memory_bytes,
        gpus=gpus,
        agent_version="1",
        os="Linux",
        containment="none",
    )


@dataclass
class Machine:
    """A node as its agent would know it."""

    key: NodeKey
    node_id: NodeId
    facts: NodeFacts
    boot_id: str = "boot-1"
    nonce: str = ""
    epoch: int = 0
    poll_seq: int = 0
    held: list[AttemptRef] = field(default_factory=list)
    """Everything that claims have ever given it."""

    @property
    def session(self) -> SessionRef:
        return SessionRef(node_id=self.node_id, node_epoch=self.epoch, nonce=self.nonce)


def refs_of(batches: Sequence[Claimed]) -> list[AttemptRef]:
    return [
        AttemptRef(task_key=batch.task.task_key, index=index, attempt=attempt, fence=Fence(fence))
        for batch in batches
        for index, attempt, fence in zip(batch.index, batch.attempt, batch.fence, strict=True)
    ]


def in_cluster(task: TaskSpec, cluster: str) -> TaskSpec:
    return replace(task, cluster=ClusterName(cluster))


def needing(task: TaskSpec, **needs: Any) -> TaskSpec:
    return replace(task, resources=Resources(**needs))
