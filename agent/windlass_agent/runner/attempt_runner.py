"""Runs what the node is given, and obeys what the coordinator says of it.

A plain attempt (nothing to prepare, nothing to upload) goes straight to a slot's keeper; the rest is
prepared first and finalized afterwards (`slow_attempts`). Whatever happens is told through `events`, and
what commands write is carried away by `logs`. Everything here runs in the event loop and never waits, so the
state is consistent between any two calls.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from windlass_agent.core.attempt_phases import is_last
from windlass_agent.core.prefetch import Demand
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord, Lease, StartRecord
from windlass_agent.runner.attempt_table import AttemptTable, names
from windlass_agent.runner.executor import EventSink, Executor, Intents, LogSink
from windlass_agent.runner.intent_parts import shared_part
from windlass_agent.runner.interruption import Interruption
from windlass_agent.runner.live_attempt import LiveAttempt, end_of, never_began
from windlass_agent.runner.start_queue import StartQueue
from windlass_agent.runner.task_template import TaskTemplates
from windlass_proto.failpoints import reach
from windlass_proto.model.assignments import AssignmentBatch, VerdictItem
from windlass_proto.model.events import (
    AttemptEvent,
    Happening,
    LostOnNode,
    PrepareFailed,
    StoppedEarly,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence
from windlass_proto.model.states import AttemptPhase
from windlass_proto.model.verdicts import EventVerdict, InventoryVerdict

_PREEMPTED = LostOnNode(kind=FailureKind.PREEMPTED, reason="the machine was to be taken away")
_NOT_STARTED = LostOnNode(
    kind=FailureKind.INFRA_NODE_LOST, reason="prepared, and not started as the coordinator was not heard"
)

log = structlog.get_logger()


class SlowPath(Protocol):
    """Takes attempts that need more than a keeper; `slow_attempts` implements it."""

    def prepare(self, attempt: LiveAttempt) -> None: ...

    def finalize(self, attempt: LiveAttempt, record: ExitRecord) -> None: ...


ContainerEnd = Callable[[LiveAttempt, ExitRecord | Happening], None]
"""Sees that an attempt's container has ended, then tells the runner what the attempt ended with."""


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
        self._intents, self._events, self._output_directory = intents, events, output_directory
        self._clock, self._boot_id = clock, boot_id
        self._table = AttemptTable(
            executors, intents=intents, events=events, logs=logs, directory_of=directory_of
        )
        self._departures = self._table.departures
        self._early: list[KeeperRecord] | None = []
        self._is_suspended = True
        self._interruption = Interruption(executors, self._table, queue, end=self.end, clock=clock)
        self._slow: SlowPath | None = None
        self._container_end: ContainerEnd | None = None
        self._with_containers: list[tuple[LiveAttempt, ExitRecord | Happening]] = []
        self.running = 0
        self.demand_changed = asyncio.Event()
        self.release_due = self._departures.release_due
        self.deletable = self._departures.deletable
        self.to_release = self._departures.to_release
        self.inventory = self._table.inventory
        self.logs_complete = self._table.logs_complete
        self.put = self._table.put

    def attach(self, slow: SlowPath) -> None:
        """Runner and slow path need each other; the runner exists first."""
        self._slow = slow

    def attach_containers(self, end_container: ContainerEnd) -> None:
        """The same for what ends containers."""
        self._container_end = end_container
        ended, self._with_containers = self._with_containers, []
        for attempt, what in ended:
            end_container(attempt, what)

    # What the link asks and tells

    @property
    def has_queued(self) -> bool:
        return self._queue.has_queued

    @property
    def stuck_slots(self) -> int:
        """Slots that cannot be used, because processes in them could not be ended."""
        return self._queue.withheld

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
                    self._confirm(attempt)
                case InventoryVerdict.REPORT:
                    self._confirm(attempt)
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
            self.end(attempt, StoppedEarly() if attempt.stop_requested else _NOT_STARTED)
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
        if attempt is None:
            if self._early is not None:
                self._early.append(record)
            return
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
        self.dispatch()

    # What the slow path and the adoption need

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

    def hand_over(self, attempt: LiveAttempt, plan: CommandPlan) -> None:
        if attempt.slot is None:
            raise RuntimeError(f"attempt {attempt.ref} has no slot")
        attempt.is_handed_over = True
        reach("agent.handover.before")
        self._executors[attempt.slot].hand_over(plan, share=attempt.template.share)
        reach("agent.handover.after")

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
        self.dispatch()

    def dispatch(self) -> None:
        """Starts what has a slot now."""
        if not self._is_suspended and not self._interruption.is_leaving:
            for attempt in self._queue.starts():
                self._start(attempt)
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

    def _start(self, attempt: LiveAttempt) -> None:
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
            self.end(attempt, _PREEMPTED if attempt.is_preempted else _NOT_STARTED)
        else:
            self._queue.leave_slot(attempt)
            attempt.phase = AttemptPhase.ASSIGNED
            self._table.give_back(attempt)
            self.dispatch()

    def _confirm(self, attempt: LiveAttempt) -> None:
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


def _refs_of(batch: AssignmentBatch) -> list[AttemptRef]:
    columns = zip(batch.index, batch.attempt, batch.fence, strict=True)
    return [
        AttemptRef(task_key=batch.task_key, index=index, attempt=attempt, fence=Fence(fence))
        for index, attempt, fence in columns
    ]
