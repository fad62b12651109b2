"""Runs what the node is given, and obeys what the coordinator says of it.

A plain attempt (nothing to prepare, nothing to upload) goes straight to a slot's keeper; the rest is
prepared first and finalized afterwards (`slow_attempts`). What becomes of an attempt that has a slot is in
`attempt_course`. Whatever happens is told through `events`, and what commands write is carried away by
`logs`. Everything here runs in the event loop and never waits, so the state is consistent between any two
calls.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from windlass_agent.core.attempt_phases import is_last
from windlass_agent.core.prefetch import Demand
from windlass_agent.core.run_plan import KeeperRecord, Lease
from windlass_agent.runner.attempt_course import NOT_STARTED, AttemptCourse
from windlass_agent.runner.attempt_table import AttemptTable, names
from windlass_agent.runner.executor import EventSink, Executor, Intents, LogSink
from windlass_agent.runner.intent_parts import shared_part
from windlass_agent.runner.interruption import Interruption
from windlass_agent.runner.live_attempt import LiveAttempt
from windlass_agent.runner.start_queue import StartQueue
from windlass_agent.runner.task_template import TaskTemplates
from windlass_proto.model.assignments import AssignmentBatch, VerdictItem
from windlass_proto.model.events import (
    AttemptEvent,
    PrepareFailed,
    StoppedEarly,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence
from windlass_proto.model.states import AttemptPhase
from windlass_proto.model.verdicts import EventVerdict, InventoryVerdict

log = structlog.get_logger()


class AttemptRunner:
    def __init__(
        self,
        executors: Sequence[Executor],
        templates: TaskTemplates,
        queue: StartQueue,
        *,
        intents: Intents,
        boot_id: str,
        events: EventSink,
        logs: LogSink,
        directory_of: Callable[[AttemptRef], Path],
        output_directory: Callable[[AttemptRef], str],
        clock: Callable[[], float],
    ) -> None:
        self._executors, self._templates, self._queue = executors, templates, queue
        self._intents, self._events = intents, events
        self._clock, self._boot_id = clock, boot_id
        self._table = AttemptTable(
            executors, intents=intents, events=events, logs=logs, directory_of=directory_of
        )
        self._departures = self._table.departures
        self._early: list[KeeperRecord] | None = []
        self._is_suspended = True
        self.course = AttemptCourse(
            executors,
            self._table,
            queue,
            intents=intents,
            events=events,
            output_directory=output_directory,
            dispatch=self.dispatch,
            clock=clock,
        )
        self.end = self.course.end
        self._interruption = Interruption(executors, self._table, queue, end=self.end, clock=clock)
        self.demand_changed = asyncio.Event()
        self.release_due = self._departures.release_due
        self.deletable = self._departures.deletable
        self.to_release = self._departures.to_release
        self.inventory = self._table.inventory
        self.logs_complete = self._table.logs_complete
        self.put = self._table.put

    # What the link asks and tells

    @property
    def has_queued(self) -> bool:
        return self._queue.has_queued

    @property
    def stuck_slots(self) -> int:
        """Slots that cannot be used, because processes in them could not be ended."""
        return self._queue.withheld

    @property
    def is_empty(self) -> bool:
        return len(self._table) == 0 and not self._departures.is_releasing and self._events.has_told_all

    def demand(self) -> Demand:
        if self._is_suspended or self._interruption.is_leaving:
            return Demand(want=0, is_urgent=False)
        return self._queue.demand()

    def lacks(self, refs: Iterable[AttemptRef]) -> list[AttemptRef]:
        missing = [ref for ref in refs if ref not in self._table]
        for ref in missing:
            self._table.refuse(ref)
        return missing

    @property
    def running(self) -> int:
        return self.course.running

    @property
    def not_running(self) -> int:
        """Attempts that are here and whose command does not run: they wait for a slot or have ended."""
        return len(self._table) - self.running

    def accept(self, batches: Sequence[AssignmentBatch]) -> None:
        """Writes the assignments down (rule A1), then starts what fits.

        Raises OSError when that cannot be done; what is not written down is given back then.
        """
        now_s = self._clock()
        failure: OSError | None = None
        for batch in batches:
            refs = _refs_of(batch)
            try:
                template = self._templates.of(batch)
            except ValueError as problem:
                self._decline(refs, f"the agent cannot read the task, it may be too old: {problem}")
                continue
            try:
                self._intents.assign(shared_part(batch, self._boot_id), refs)
            except OSError as problem:
                failure = problem
                self.turn_down([batch])
                continue
            for ref in refs:
                if ref not in self._table:  # a repeated poll brings the same assignments again
                    self._admit(LiveAttempt(ref=ref, template=template, accepted_at_s=now_s))
        self.dispatch()
        if failure is not None:
            raise failure

    def turn_down(self, batches: Sequence[AssignmentBatch]) -> None:
        """Gives assignments back that came when no more was wanted."""
        for batch in batches:
            for ref in _refs_of(batch):
                if ref not in self._table:
                    self._departures.give_back(ref)

    def obey(self, verdicts: Sequence[VerdictItem]) -> None:
        forgotten = []
        for item in verdicts:
            attempt = self._table.get(item.ref)
            if attempt is None:
                continue
            match item.verdict:
                case InventoryVerdict.KEEP:
                    self.course.confirm(attempt)
                case InventoryVerdict.REPORT:
                    self.course.confirm(attempt)
                    self._table.tell_again(attempt, item.from_seq)
                case InventoryVerdict.KILL:
                    self._interruption.kill(attempt)
                case InventoryVerdict.FORGET:
                    forgotten.append(item.ref)
        self.forget(forgotten)
        self.resume()

    def suspend(self) -> None:
        self._is_suspended = True

    def resume(self) -> None:
        if self._is_suspended:
            self._is_suspended = False
            self.dispatch()

    def stop(self, refs: Iterable[AttemptRef]) -> None:
        for ref in refs:
            attempt = self._table.get(ref)
            if attempt is not None:
                self._interruption.stop(attempt)
                continue
            self._table.refuse(ref)
            self._events.tell(ref, StoppedEarly())
        self.dispatch()

    def kill(self, refs: Iterable[AttemptRef]) -> None:
        for ref in refs:
            attempt = self._table.get(ref)
            if attempt is None:
                self._table.refuse(ref)
            else:
                self._interruption.kill(attempt)
        self.dispatch()

    def forget(self, refs: Iterable[AttemptRef]) -> None:
        ended, others = self._table.ended(refs)
        for attempt in others:
            self._interruption.kill(attempt)
        self._table.remove(ended)

    def answered(self, event: AttemptEvent, verdict: EventVerdict) -> None:
        attempt = self._table.get(event.ref)
        if attempt is None:
            return
        if verdict is EventVerdict.CONFLICT:
            log.warning("attempt.contradicted", **names(attempt))
        if is_last(event.what):
            self._table.acknowledged(attempt)
        elif verdict in (EventVerdict.SUPERSEDED, EventVerdict.UNKNOWN):
            self._interruption.kill(attempt)

    def released(self, ref: AttemptRef, *, accepted: bool) -> None:
        self._departures.answered(ref)
        attempt = self._table.get(ref)
        if attempt is None:
            return
        if not accepted:
            # More is known of it there than that it was assigned: somebody waits for its end.
            self.end(attempt, StoppedEarly() if attempt.stop_requested else NOT_STARTED)
            return
        log.debug("attempt.released", accepted=accepted, **names(attempt))
        self._table.remove([attempt])

    def renew_lease(self, lease: Lease) -> None:
        for executor in self._executors:
            executor.renew_lease(lease)

    def preempt(self, within_s: float) -> None:
        """The machine goes away: ends what runs, gives back what has not begun, takes nothing more."""
        self._interruption.preempt_all(within_s)
        self.dispatch()

    @property
    def has_left(self) -> bool:
        """After `preempt`: whether everything has come to its end and is told, with its output."""
        return not any(not (attempt.is_acknowledged and attempt.logs_complete) for attempt in self._table)

    # What executors tell

    def on_record(self, record: KeeperRecord) -> None:
        attempt = self._table.get(record.ref)
        if attempt is not None:
            self.course.on_record(attempt, record)
        elif self._early is not None:
            self._early.append(record)

    # What the rest of the agent needs

    def interrupt_transfers(self) -> None:
        """The agent ends: threads that copy files stop at the next piece; the next agent begins again."""
        for attempt in self._table:
            if attempt.context is not None:
                attempt.context.cancelled.set()

    def throw_away(self, directories: Iterable[Path]) -> None:
        """Directories of attempts that an agent before this one forgot."""
        self._table.rubbish += directories

    def take_rubbish(self) -> list[Path]:
        """Directories of forgotten attempts, for whoever has the time to remove them."""
        rubbish, self._table.rubbish = self._table.rubbish, []
        return rubbish

    @property
    def held(self) -> list[AttemptRef]:
        return [attempt.ref for attempt in self._table]

    @property
    def running_with_inputs(self) -> list[AttemptRef]:
        """Attempts whose mounts somebody reads from."""
        return [
            attempt.ref
            for attempt in self._table
            if attempt.has_inputs and attempt.phase is AttemptPhase.RUNNING
        ]

    @property
    def not_ended(self) -> list[AttemptRef]:
        """Attempts that would end with this agent if it ended its keepers, without anybody having asked."""
        return [
            attempt.ref
            for attempt in self._table
            if attempt.is_handed_over and attempt.exit is None and not attempt.stop_requested
        ]

    def adopted(self) -> None:
        """Everything found at the start has been put here: what keepers said meanwhile counts now."""
        early, self._early = self._early or [], None
        for record in early:
            self.on_record(record)

    def dispatch(self) -> None:
        """Starts what has a slot now."""
        if not self._is_suspended and not self._interruption.is_leaving:
            for attempt in self._queue.starts():
                self.course.start(attempt)
        if self._queue.has_room:
            self.demand_changed.set()

    def look_after(self) -> None:
        """Takes back what waits behind long commands, and slots that can be used again; now and then."""
        for number, executor in enumerate(self._executors):
            self._queue.withhold(number, executor.is_stuck)
        for _, ref in self._queue.stuck_in_keepers():
            attempt = self._table.get(ref)
            if attempt is not None:
                self._interruption.recall(attempt)
        for attempt in self._queue.waiting_too_long():
            self._interruption.give_back_waiting(attempt)
        if self._queue.has_room:
            self.dispatch()

    # Below: one step of the above each

    def _decline(self, refs: Iterable[AttemptRef], reason: str) -> None:
        for ref in refs:
            self._events.tell(ref, PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason=reason))

    def _admit(self, attempt: LiveAttempt) -> None:
        self._table.put(attempt)
        if self._departures.is_refused(attempt.ref):
            attempt.is_fenced = True
            self._table.remove([attempt])
            return
        fits = self._queue.capacity.could_ever_fit(attempt.template.needs)
        if fits and not self._interruption.is_leaving:
            self._queue.add(attempt)
        else:
            self._table.give_back(attempt)


def _refs_of(batch: AssignmentBatch) -> list[AttemptRef]:
    columns = zip(batch.index, batch.attempt, batch.fence, strict=True)
    return [
        AttemptRef(task_key=batch.task_key, index=index, attempt=attempt, fence=Fence(fence))
        for index, attempt, fence in columns
    ]
