"""An attempt that this node holds, from its assignment until it is forgotten."""

from dataclasses import dataclass, field

from windlass_agent.core.attempt_phases import seq_of
from windlass_agent.core.run_plan import ExitRecord
from windlass_agent.runner.steps.base import StepContext
from windlass_agent.runner.task_template import TaskTemplate
from windlass_proto.model.assignments import InventoryItem
from windlass_proto.model.events import Exited, Happening, LostOnNode
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import AttemptPhase


@dataclass(slots=True)
class LiveAttempt:
    ref: AttemptRef
    template: TaskTemplate
    accepted_at_s: float
    phase: AttemptPhase = AttemptPhase.ASSIGNED
    slot: int | None = None
    """The slot that is reserved for it."""
    gpus: tuple[str, ...] = ()
    """What it was given of the node's GPUs, by name."""
    is_waiting: bool = False
    """For a slot."""
    is_handed_over: bool = False
    """To its slot's keeper, which holds records of it from then on."""
    is_recalled: bool = False
    """Taken back from its keeper before it started."""
    is_held: bool = False
    """Found at the agent's start: nothing is done with it before the coordinator has confirmed it."""
    stop_requested: bool = False
    is_preempted: bool = False
    """It was to end because its machine goes away."""
    is_fenced: bool = False
    """It counts for nothing any more: nothing of it is told."""
    is_acknowledged: bool = False
    """The coordinator has answered its last event."""
    logs_complete: bool = False
    has_directory: bool = False
    exit: ExitRecord | None = None
    results: tuple[Happening, ...] = field(default=())
    """What was told of its end, to be told again when asked."""
    context: StepContext | None = None
    """While it is prepared or finalized."""
    is_container_gone: bool = False
    """Of one that ran in a container: nothing of it is left."""

    @property
    def has_ended(self) -> bool:
        """Nothing runs and nothing will be told that is not in `results`."""
        return self.phase is AttemptPhase.ENDED and self.context is None

    @property
    def has_container(self) -> bool:
        """What its keeper tells of its end is not all that there is to it."""
        return self.template.spec.container is not None and not self.is_container_gone

    @property
    def uploads_results(self) -> bool:
        spec = self.template.spec
        return bool(spec.outputs or spec.stdout or spec.stderr or spec.logs)

    @property
    def is_given_up(self) -> bool:
        """It ran, and was ended for a reason of the node: its exit code says nothing."""
        record = self.exit
        return record is not None and (record.disconnected or (self.is_preempted and record.stopped))

    @property
    def has_inputs(self) -> bool:
        """Its exit code counts only if what it read was there until its end."""
        return bool(self.template.spec.inputs)

    @property
    def needs_finalizing(self) -> bool:
        return self.uploads_results or self.has_inputs

    def inventory_item(self) -> InventoryItem:
        return InventoryItem(
            ref=self.ref,
            phase=self.phase,
            seq=self._seq(),
            has_exit=self.exit is not None and not never_began(self.exit),
        )

    def _seq(self) -> int:
        if self.results:
            return seq_of(self.results[-1])
        match self.phase:
            case AttemptPhase.PREPARING:
                return 1
            case AttemptPhase.RUNNING:
                return 2
            case _:
                return 0


def never_began(record: ExitRecord) -> bool:
    """It was stopped before anything of it was tried; a command that could not be started has a code."""
    return record.code is None and record.signal is None


def end_of(attempt: LiveAttempt, record: ExitRecord, *, finalizing: bool = False) -> Exited | LostOnNode:
    """The keeper's exit record as the coordinator is told of it."""
    if not attempt.is_given_up:
        return exited_event(record, finalizing=finalizing)
    preempted = f"the machine was to be taken away; {record.reason}"
    return LostOnNode(
        kind=FailureKind.INFRA_NODE_LOST if record.disconnected else FailureKind.PREEMPTED,
        reason=record.reason if record.disconnected else preempted,
        stdout_end=record.stdout_end,
        stderr_end=record.stderr_end,
    )


def exited_event(record: ExitRecord, *, finalizing: bool, note: str = "") -> Exited:
    return Exited(
        code=record.code,
        signal=record.signal,
        kind=record.kind,
        reason="; ".join(part for part in (record.reason, note) if part),
        ran_for_us=record.ran_for_us,
        user_cpu_us=record.user_cpu_us,
        system_cpu_us=record.system_cpu_us,
        peak_memory_bytes=record.peak_memory_bytes,
        stdout_end=record.stdout_end,
        stderr_end=record.stderr_end,
        finalizing=finalizing,
        stopped=record.stopped,
        leftover_processes=record.leftover_processes,
    )
