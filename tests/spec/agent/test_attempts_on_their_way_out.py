"""What becomes of attempts that the agent does not have, or cannot give back."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from windlass_agent.core.prefetch import PrefetchLimits
from windlass_agent.core.run_plan import CommandPlan, Lease
from windlass_agent.core.slots import HandOverLimits
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.live_attempt import LiveAttempt
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.runner.start_queue import QueueSettings, StartQueue
from windlass_agent.runner.task_template import TaskTemplates
from windlass_agent.spool.intents import SharedPart
from windlass_proto.model.assignments import AssignmentBatch, VerdictItem
from windlass_proto.model.environment import NodeVariables
from windlass_proto.model.events import Happening, LostOnNode
from windlass_proto.model.ids import AttemptRef, ClusterName, Fence, JobId, TaskKey, TaskName
from windlass_proto.model.resources import NodeCapacity
from windlass_proto.model.specs import Argv, TaskSpec, task_to_json
from windlass_proto.model.verdicts import InventoryVerdict

VARIABLES = NodeVariables(
    node_id="",
    node_name="",
    path="",
    home="",
    user="",
    lang="",
    tmpdir="",
    region="",
    oss_host="",
    worker_id="",
)
REF = AttemptRef(task_key=TaskKey(1), index=0, attempt=1, fence=Fence(1))


class Slot:
    """Notes what it is given, and runs nothing."""

    is_stuck = False

    def __init__(self) -> None:
        self.given: list[AttemptRef] = []

    async def adopt(self) -> SlotInventory:
        return SlotInventory()

    async def start(self) -> None:
        """Nothing to start."""

    def hand_over(self, plan: CommandPlan, *, share: str | None = None) -> None:
        self.given.append(plan.ref)

    def stop(self, ref: AttemptRef, *, grace_s: float | None = None) -> None:
        """Nothing runs."""

    def renew_lease(self, lease: Lease) -> None:
        """Nothing runs."""

    def forget(self, ref: AttemptRef) -> None:
        """Nothing is kept."""

    def limit_spool(self, *, attempt_bytes: int, slot_bytes: int) -> None:
        """Nothing is written."""

    async def close(self, *, end_keeper: bool) -> None:
        """Nothing to end."""


class Outside:
    """The journal of intents, the reporter and the shipper of output: what they are told."""

    def __init__(self) -> None:
        self.told: list[Happening] = []

    def assign(self, shared: SharedPart, refs: Sequence[AttemptRef]) -> None:
        """Written down."""

    def tell(self, ref: AttemptRef, what: Happening) -> None:
        self.told.append(what)

    def watch(self, ref: AttemptRef, *, keeps_spool: bool) -> None:
        """Nothing is written."""

    def ended(self, ref: AttemptRef, ends: tuple[int, int]) -> None:
        """Nothing was written."""

    def let_go(self, ref: AttemptRef) -> None:
        """Nothing was written."""

    def drop(self, ref: AttemptRef) -> None:
        """Nothing was written."""

    def forget(self, refs: Iterable[AttemptRef]) -> None:
        """Nothing is kept."""


class Node:
    """A runner with as many slots as are asked for."""

    def __init__(self, directory: Path, *, slots: int) -> None:
        self.now_s = 100.0
        self.slots = [Slot() for _ in range(slots)]
        self.outside = Outside()
        self.templates = TaskTemplates(VARIABLES, kill_grace=timedelta(seconds=1))
        settings = QueueSettings(
            prefetch=PrefetchLimits(), hand_over=HandOverLimits(), give_back_after_s=10.0
        )
        capacity = NodeCapacity(cpu=8, memory_bytes=1 << 30, slots=slots)
        self.runner = AttemptRunner(
            self.slots,
            self.templates,
            StartQueue(capacity, settings, clock=lambda: self.now_s),
            intents=self.outside,
            boot_id="boot",
            events=self.outside,
            logs=self.outside,
            directory_of=lambda ref: directory / str(ref.index),
            output_directory=lambda ref: str(directory / str(ref.index)),
            clock=lambda: self.now_s,
        )
        self.runner.resume()


def an_assignment(ref: AttemptRef) -> AssignmentBatch:
    spec = TaskSpec(name=TaskName("task"), command=Argv(args=("true",)))
    return AssignmentBatch(
        task_key=ref.task_key,
        job_id=JobId("job"),
        task_name=spec.name,
        instance_count=1,
        spec=task_to_json(spec),
        cluster=ClusterName("default"),
        index=(ref.index,),
        attempt=(ref.attempt,),
        fence=(ref.fence,),
    )


def test_what_was_said_to_be_missing_does_not_start_when_its_assignment_comes_late(tmp_path: Path) -> None:
    node = Node(tmp_path, slots=1)

    assert node.runner.lacks([REF]) == [REF]
    node.runner.accept([an_assignment(REF)])

    assert node.slots[0].given == []
    assert node.runner.inventory() == []


def test_what_is_here_is_not_missing(tmp_path: Path) -> None:
    node = Node(tmp_path, slots=1)
    node.runner.accept([an_assignment(REF)])

    assert node.runner.lacks([REF]) == []
    assert node.slots[0].given == [REF]


def test_what_the_coordinator_does_not_take_back_is_told_as_lost(tmp_path: Path) -> None:
    """It was being prepared when the agent was killed, and its place is taken by the next agent's time."""
    node = Node(tmp_path, slots=0)
    template = node.templates.of(an_assignment(REF))
    node.runner.put(LiveAttempt(ref=REF, template=template, accepted_at_s=node.now_s, is_held=True))
    node.runner.obey([VerdictItem(ref=REF, verdict=InventoryVerdict.KEEP, from_seq=1)])
    node.now_s += 11
    node.runner.look_after()
    assert node.runner.to_release(10) == [REF]

    node.runner.released(REF, accepted=False)

    (told,) = node.outside.told
    assert isinstance(told, LostOnNode)
    assert not told.kind.spends_user_budget
