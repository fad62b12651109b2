"""From a slot to the last word: an attempt is started, its command runs and exits, and its end is told.

Which attempts these are is decided in `attempt_runner`; what is known of them is in `attempt_table`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord, StartRecord
from windlass_agent.runner.attempt_table import AttemptTable
from windlass_agent.runner.executor import EventSink, Executor, Intents
from windlass_agent.runner.live_attempt import LiveAttempt, end_of, never_began
from windlass_agent.runner.start_queue import StartQueue
from windlass_proto.failpoints import reach
from windlass_proto.model.events import Happening, LostOnNode, PrepareFailed, StoppedEarly
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import AttemptPhase

_PREEMPTED = LostOnNode(kind=FailureKind.PREEMPTED, reason="the machine was to be taken away")
NOT_STARTED = LostOnNode(
    kind=FailureKind.INFRA_NODE_LOST, reason="prepared, and not started as the coordinator was not heard"
)


class SlowPath(Protocol):
    """Takes attempts that need more than a keeper; `slow_attempts` implements it."""

    def prepare(self, attempt: LiveAttempt) -> None: ...

    def finalize(self, attempt: LiveAttempt, record: ExitRecord) -> None: ...


ContainerEnd = Callable[[LiveAttempt, ExitRecord | Happening], None]
"""Sees that an attempt's container has ended, then tells the runner what the attempt ended with."""


class AttemptCourse:
    def __init__(
        self,
        executors: Sequence[Executor],
        table: AttemptTable,
        queue: StartQueue,
        *,
        intents: Intents,
        events: EventSink,
        output_directory: Callable[[AttemptRef], str],
        dispatch: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`dispatch` is called when a slot may have become free."""
        self._executors, self._table, self._queue = executors, table, queue
        self._intents, self._events, self._output_directory = intents, events, output_directory
        self._dispatch, self._clock = dispatch, clock
        self._slow: SlowPath | None = None
        self._container_end: ContainerEnd | None = None
        self._with_containers: list[tuple[LiveAttempt, ExitRecord | Happening]] = []
        self.running = 0
        """Attempts whose command runs."""

    def attach(self, slow: SlowPath) -> None:
        """This and the slow path need each other; this exists first."""
        self._slow = slow

    def attach_containers(self, end_container: ContainerEnd) -> None:
        """The same for what ends containers."""
        self._container_end = end_container
        ended, self._with_containers = self._with_containers, []
        for attempt, what in ended:
            end_container(attempt, what)

    def start(self, attempt: LiveAttempt) -> None:
        if attempt.gpus and not self._write_gpus_down(attempt):
            return
        if attempt.template.is_plain:
            output_dir = self._output_directory(attempt.ref)
            self.hand_over(attempt, attempt.template.plain_plan(attempt.ref, output_dir, attempt.gpus))
            return
        if self._slow is None:
            raise RuntimeError("the runner has no slow path")
        attempt.phase = AttemptPhase.PREPARING
        attempt.has_directory = True
        self._slow.prepare(attempt)

    def hand_over(self, attempt: LiveAttempt, plan: CommandPlan) -> None:
        if attempt.slot is None:
            raise RuntimeError(f"attempt {attempt.ref} has no slot")
        attempt.is_handed_over = True
        reach("agent.handover.before")
        self._executors[attempt.slot].hand_over(plan, share=attempt.template.share)
        reach("agent.handover.after")

    def on_record(self, attempt: LiveAttempt, record: KeeperRecord) -> None:
        match record:
            case StartRecord():
                self._on_started(attempt)
            case ExitRecord() if attempt.has_container and not never_began(record):
                self._end_container(attempt, record)
            case ExitRecord():
                self._on_exited(attempt, record)

    def on_keeper_lost(
        self, number: int, refs: tuple[AttemptRef, ...], what: LostOnNode | PrepareFailed
    ) -> None:
        """Of everything that the keeper of a slot had and left no exit record of."""
        self._queue.withhold(number, self._executors[number].is_stuck)
        for ref in refs:
            attempt = self._table.get(ref)
            if attempt is None or attempt.phase is AttemptPhase.ENDED:
                continue
            if attempt.has_container and attempt.is_handed_over:
                self._end_container(attempt, what)
            else:
                self.end(attempt, what)
        self._dispatch()

    def end(self, attempt: LiveAttempt, what: Happening) -> None:
        """It has ended without an exit record; tells so unless nobody wants to know."""
        self._queue.remove(attempt)
        self._ended(attempt)
        ends = (0, 0)
        if isinstance(what, LostOnNode):
            what = self.lost_with_output(attempt, what)
            ends = (what.stdout_end, what.stderr_end)
            attempt.has_directory = attempt.has_directory or ends != (0, 0)
        attempt.results = (what,)
        self._table.logs_ended(attempt, ends)
        self.finish(attempt)

    def end_early(self, attempt: LiveAttempt) -> None:
        """Its preparation was interrupted."""
        self.end(attempt, _PREEMPTED if attempt.is_preempted else StoppedEarly())

    def finish(self, attempt: LiveAttempt) -> None:
        """Everything of the attempt is over: tells its newest result, or drops it when it is fenced."""
        self._queue.leave_slot(attempt)
        if attempt.is_fenced:
            self._table.remove([attempt])
        else:
            reach("agent.exit.before_report")
            self._events.tell(attempt.ref, attempt.results[-1])
        self._dispatch()

    # What was found at the start

    def occupy(self, attempt: LiveAttempt, number: int) -> None:
        """A keeper has had it since before the agent started."""
        attempt.is_handed_over = True
        self._queue.occupy(attempt, number)
        if attempt.phase is AttemptPhase.RUNNING:
            self.running += 1
            self._table.watch_logs(attempt)

    def ship_rest(self, attempt: LiveAttempt, ends: tuple[int, int]) -> None:
        """It ended before the agent started; some of its output may still be here only."""
        self._table.watch_logs(attempt)
        self._table.logs_ended(attempt, ends)

    def lost_with_output(self, attempt: LiveAttempt, what: LostOnNode) -> LostOnNode:
        out, err = self._table.spooled(attempt)
        return replace(what, stdout_end=out, stderr_end=err)

    def confirm(self, attempt: LiveAttempt) -> None:
        """The coordinator wants it: what was found at the start may go on."""
        if not attempt.is_held:
            return
        attempt.is_held = False
        attempt.accepted_at_s = self._clock()
        if attempt.phase is AttemptPhase.ASSIGNED and not attempt.is_handed_over:
            self._queue.add(attempt)
        elif attempt.exit is not None and never_began(attempt.exit):
            attempt.stop_requested = attempt.exit.stopped  # should it be no longer ours to give back
            self._on_not_started(attempt)
        elif attempt.exit is not None and attempt.needs_finalizing and not attempt.is_given_up:
            self._finalize(attempt, attempt.exit)
        else:
            for what in attempt.results:
                self._events.tell(attempt.ref, what)

    # Below: one step of the above each

    def _write_gpus_down(self, attempt: LiveAttempt) -> bool:
        """So that an agent that takes the attempt over gives them to nobody else; False = it has ended."""
        try:
            self._intents.give_gpus(attempt.ref, attempt.gpus)
        except OSError as problem:
            reason = f"which GPUs it has cannot be written down: {problem}"
            self.end(attempt, PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason=reason))
            return False
        return True

    def _ended(self, attempt: LiveAttempt) -> None:
        if attempt.phase is AttemptPhase.RUNNING:
            self.running -= 1
        attempt.phase = AttemptPhase.ENDED

    def _end_container(self, attempt: LiveAttempt, what: ExitRecord | Happening) -> None:
        if self._container_end is None:  # told while the agent starts
            self._with_containers.append((attempt, what))
        else:
            self._container_end(attempt, what)

    def _on_started(self, attempt: LiveAttempt) -> None:
        if attempt.phase in (AttemptPhase.RUNNING, AttemptPhase.ENDED):
            return
        attempt.phase = AttemptPhase.RUNNING
        self.running += 1
        self._table.watch_logs(attempt)
        if not attempt.is_fenced:
            self._events.tell(attempt.ref, self._table.started(attempt))

    def _on_exited(self, attempt: LiveAttempt, record: ExitRecord) -> None:
        if attempt.phase is AttemptPhase.ENDED:
            return
        if never_began(record):
            self._on_not_started(attempt)
            return
        self._on_started(attempt)
        self._ended(attempt)
        attempt.exit = record
        self._queue.observe(attempt.template, record.ran_for_us / 1e6)
        ends = (record.stdout_end, record.stderr_end)
        attempt.has_directory = attempt.has_directory or ends != (0, 0)
        if attempt.needs_finalizing and not (attempt.is_fenced or attempt.is_given_up):
            self._finalize(attempt, record)
        else:
            attempt.results = (end_of(attempt, record),)
            self.finish(attempt)
        self._table.logs_ended(attempt, ends)

    def _finalize(self, attempt: LiveAttempt, record: ExitRecord) -> None:
        if self._slow is None:
            raise RuntimeError("the runner has no slow path")
        self._slow.finalize(attempt, record)

    def _on_not_started(self, attempt: LiveAttempt) -> None:
        """It was stopped, fenced or recalled in its keeper's queue, or came there too late."""
        if attempt.is_fenced or attempt.stop_requested:
            self.end(attempt, StoppedEarly())
        elif attempt.is_preempted or not attempt.template.is_plain:
            # The coordinator knows that it was being prepared, so it cannot simply be given back.
            self.end(attempt, _PREEMPTED if attempt.is_preempted else NOT_STARTED)
        else:
            self._queue.leave_slot(attempt)
            attempt.phase = AttemptPhase.ASSIGNED
            self._table.give_back(attempt)
            self._dispatch()
