"""Runs what the node is given: the one place that knows every attempt it holds.

A plain attempt (nothing to prepare, nothing to upload) goes straight to a slot's keeper; the rest is
prepared first and finalized afterwards (`slow_attempts`). Whatever happens is told through `events`, and
what commands write is carried away by `logs`. Everything here runs in the event loop and never waits, so the
state is consistent between any two calls.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from windlass_agent.core.attempt_phases import is_last, seq_of
from windlass_agent.core.prefetch import Demand
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord, StartRecord
from windlass_agent.runner.departures import Departures
from windlass_agent.runner.executor import EventSink, Executor, Intents, LogSink
from windlass_agent.runner.intent_parts import shared_part
from windlass_agent.runner.live_attempt import LiveAttempt, exited_event, never_began
from windlass_agent.runner.start_queue import StartQueue
from windlass_agent.runner.task_template import TaskTemplates
from windlass_proto.model.assignments import AssignmentBatch, InventoryItem, VerdictItem
from windlass_proto.model.events import (
    AttemptEvent,
    Happening,
    LostOnNode,
    PrepareFailed,
    Started,
    StoppedEarly,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence
from windlass_proto.model.states import AttemptPhase
from windlass_proto.model.verdicts import EventVerdict, InventoryVerdict

_STARTED = Started()

log = structlog.get_logger()


class SlowPath(Protocol):
    """Takes attempts that need more than a keeper; `slow_attempts` implements it."""

    def prepare(self, attempt: LiveAttempt) -> None: ...

    def finalize(self, attempt: LiveAttempt, record: ExitRecord) -> None: ...


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
        self._intents, self._events, self._logs = intents, events, logs
        self._directory_of, self._output_directory = directory_of, output_directory
        self._clock, self._boot_id = clock, boot_id
        self._live: dict[AttemptRef, LiveAttempt] = {}
        self._departures = Departures()
        self._early: list[KeeperRecord] | None = []
        self._is_suspended = True
        self._slow: SlowPath | None = None
        self.running = 0
        self.rubbish: list[Path] = []
        """Directories of forgotten attempts, to be removed by whoever has the time."""
        self.demand_changed = asyncio.Event()
        self.release_due = self._departures.release_due

    def attach(self, slow: SlowPath) -> None:
        """Runner and slow path need each other; the runner exists first."""
        self._slow = slow

    # What the link asks and tells

    @property
    def has_queued(self) -> bool:
        return self._queue.has_queued

    def demand(self) -> Demand:
        return Demand(want=0, is_urgent=False) if self._is_suspended else self._queue.demand()

    def accept(self, batches: Sequence[AssignmentBatch]) -> None:
        """Writes the assignments down (rule A1), then starts what fits."""
        now_s = self._clock()
        for batch in batches:
            columns = zip(batch.index, batch.attempt, batch.fence, strict=True)
            refs = [
                AttemptRef(task_key=batch.task_key, index=index, attempt=attempt, fence=Fence(fence))
                for index, attempt, fence in columns
            ]
            try:
                template = self._templates.of(batch)
            except ValueError as problem:
                self._decline(refs, f"the agent cannot read the task, it may be too old: {problem}")
                continue
            self._intents.assign(shared_part(batch, self._boot_id), refs)
            for ref in refs:
                if ref not in self._live:  # a repeated poll brings the same assignments again
                    self._admit(LiveAttempt(ref=ref, template=template, accepted_at_s=now_s))
        self.dispatch()

    def inventory(self) -> list[InventoryItem]:
        return [attempt.inventory_item() for attempt in self._live.values() if not attempt.is_fenced]

    def obey(self, verdicts: Sequence[VerdictItem]) -> None:
        forgotten = []
        for item in verdicts:
            attempt = self._live.get(item.ref)
            if attempt is None:
                continue
            match item.verdict:
                case InventoryVerdict.KEEP:
                    self._confirm(attempt)
                case InventoryVerdict.REPORT:
                    self._confirm(attempt)
                    self._tell_again(attempt, item.from_seq)
                case InventoryVerdict.KILL:
                    self._kill(attempt)
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
            attempt = self._live.get(ref)
            if attempt is not None:
                self._stop(attempt)
                continue
            # Nothing of it is here, and if its assignment is on the way it will not start.
            self._departures.refuse(ref)
            self._events.tell(ref, StoppedEarly())
        self.dispatch()

    def kill(self, refs: Iterable[AttemptRef]) -> None:
        for ref in refs:
            attempt = self._live.get(ref)
            if attempt is None:
                self._departures.refuse(ref)
            else:
                self._kill(attempt)
        self.dispatch()

    def forget(self, refs: Iterable[AttemptRef]) -> None:
        done = []
        for ref in refs:
            attempt = self._live.get(ref)
            if attempt is None:
                continue
            if attempt.has_ended:
                done.append(attempt)
            else:
                self._kill(attempt)
        self._remove(done)

    def answered(self, event: AttemptEvent, verdict: EventVerdict) -> None:
        attempt = self._live.get(event.ref)
        if attempt is None:
            return
        if verdict is EventVerdict.CONFLICT:
            log.warning("attempt.contradicted", **_names(attempt))
        if is_last(event.what):
            attempt.is_acknowledged = True
            self._note_deletable(attempt)
        elif verdict in (EventVerdict.SUPERSEDED, EventVerdict.UNKNOWN):
            self._kill(attempt)

    def deletable(self, limit: int) -> list[AttemptRef]:
        return self._departures.deletable(limit)

    def to_release(self, limit: int) -> list[AttemptRef]:
        return self._departures.to_release(limit)

    def released(self, ref: AttemptRef, *, accepted: bool) -> None:
        self._departures.answered(ref)
        attempt = self._live.get(ref)
        if attempt is None:
            return
        if attempt.stop_requested and not accepted:
            self.end(attempt, StoppedEarly())
            return
        log.debug("attempt.released", accepted=accepted, **_names(attempt))
        self._remove([attempt])

    # What executors tell

    def on_record(self, record: KeeperRecord) -> None:
        attempt = self._live.get(record.ref)
        if attempt is None:
            if self._early is not None:
                self._early.append(record)
            return
        match record:
            case StartRecord():
                self._on_started(attempt)
            case ExitRecord():
                self._on_exited(attempt, record)

    def on_keeper_lost(self, _slot: int, refs: tuple[AttemptRef, ...]) -> None:
        """The keeper of a slot is gone, and with it everything that it had and left no exit record of."""
        what = LostOnNode(
            kind=FailureKind.INFRA_KEEPER_LOST, reason="its keeper ended without leaving an exit record"
        )
        for ref in refs:
            attempt = self._live.get(ref)
            if attempt is not None and attempt.phase is not AttemptPhase.ENDED:
                self.end(attempt, what)
        self.dispatch()

    def logs_complete(self, ref: AttemptRef) -> None:
        attempt = self._live.get(ref)
        if attempt is not None:
            attempt.logs_complete = True
            self._note_deletable(attempt)

    # What the slow path and the adoption need

    def interrupt_transfers(self) -> None:
        """The agent ends: threads that copy files stop at the next piece; the next agent begins again."""
        for attempt in self._live.values():
            if attempt.context is not None:
                attempt.context.cancelled.set()

    @property
    def not_ended(self) -> list[AttemptRef]:
        """Attempts that would end with this agent if it ended its keepers, without anybody having asked."""
        return [
            attempt.ref
            for attempt in self._live.values()
            if attempt.is_handed_over and attempt.exit is None and not attempt.stop_requested
        ]

    def put(self, attempt: LiveAttempt) -> None:
        """An attempt of the agent before this one."""
        self._live[attempt.ref] = attempt

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
            self._watch_logs(attempt)

    def ship_rest(self, attempt: LiveAttempt, record: ExitRecord) -> None:
        """It ended before the agent started; some of its output may still be here only."""
        self._watch_logs(attempt)
        self._logs.ended(attempt.ref, (record.stdout_end, record.stderr_end))

    def give_back(self, attempt: LiveAttempt) -> None:
        """It has not started, and another node may have it."""
        self._departures.give_back(attempt.ref)

    def hand_over(self, attempt: LiveAttempt, plan: CommandPlan) -> None:
        if attempt.slot is None:
            raise RuntimeError(f"attempt {attempt.ref} has no slot")
        attempt.is_handed_over = True
        self._executors[attempt.slot].hand_over(plan, share=attempt.template.share)

    def end(self, attempt: LiveAttempt, what: Happening) -> None:
        """It has ended without an exit record; tells so unless nobody wants to know."""
        self._queue.remove(attempt)
        self._ended(attempt)
        attempt.results = (what,)
        self._logs.ended(attempt.ref, (0, 0))
        self.finish(attempt)

    def finish(self, attempt: LiveAttempt) -> None:
        """Everything of the attempt is over: tells its newest result, or drops it when it is fenced."""
        self._queue.leave_slot(attempt)
        if attempt.is_fenced:
            self._remove([attempt])
        else:
            self._events.tell(attempt.ref, attempt.results[-1])
        self.dispatch()

    def dispatch(self) -> None:
        """Starts what has a slot now."""
        if not self._is_suspended:
            for attempt in self._queue.starts():
                self._start(attempt)
        if self._queue.has_room:
            self.demand_changed.set()

    def give_back_stuck(self) -> None:
        """Takes back what waits behind long commands; called now and then."""
        for number, ref in self._queue.stuck_in_keepers():
            attempt = self._live.get(ref)
            if attempt is not None and not attempt.is_recalled:
                attempt.is_recalled = True
                self._executors[number].stop(ref)
        for attempt in self._queue.waiting_too_long():
            self._queue.remove(attempt)
            self.give_back(attempt)

    # Below: one step of the above each

    def _decline(self, refs: Iterable[AttemptRef], reason: str) -> None:
        for ref in refs:
            self._events.tell(ref, PrepareFailed(kind=FailureKind.INFRA_PREPARE, reason=reason))

    def _admit(self, attempt: LiveAttempt) -> None:
        self._live[attempt.ref] = attempt
        if self._departures.is_refused(attempt.ref):
            attempt.is_fenced = True
            self._remove([attempt])
            return
        if self._queue.capacity.could_ever_fit(attempt.template.needs):
            self._queue.add(attempt)
        else:
            self.give_back(attempt)

    def _start(self, attempt: LiveAttempt) -> None:
        if attempt.template.is_plain:
            self.hand_over(
                attempt, attempt.template.plain_plan(attempt.ref, self._output_directory(attempt.ref))
            )
            return
        if self._slow is None:
            raise RuntimeError("the runner has no slow path")
        attempt.phase = AttemptPhase.PREPARING
        attempt.has_directory = True
        self._slow.prepare(attempt)

    def _ended(self, attempt: LiveAttempt) -> None:
        if attempt.phase is AttemptPhase.RUNNING:
            self.running -= 1
        attempt.phase = AttemptPhase.ENDED

    def _watch_logs(self, attempt: LiveAttempt) -> None:
        self._logs.watch(attempt.ref, keeps_spool=attempt.uploads_results)

    def _on_started(self, attempt: LiveAttempt) -> None:
        if attempt.phase in (AttemptPhase.RUNNING, AttemptPhase.ENDED):
            return
        attempt.phase = AttemptPhase.RUNNING
        self.running += 1
        self._watch_logs(attempt)
        if not attempt.is_fenced:
            self._events.tell(attempt.ref, _STARTED)

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
        if attempt.uploads_results and not attempt.is_fenced:
            self._finalize(attempt, record)
        else:
            attempt.results = (exited_event(record, finalizing=False),)
            self.finish(attempt)
        if attempt.is_fenced:
            self._logs.drop(attempt.ref)
        else:
            self._logs.ended(attempt.ref, ends)

    def _finalize(self, attempt: LiveAttempt, record: ExitRecord) -> None:
        if self._slow is None:
            raise RuntimeError("the runner has no slow path")
        self._slow.finalize(attempt, record)

    def _on_not_started(self, attempt: LiveAttempt) -> None:
        """It was stopped, fenced or recalled in its keeper's queue."""
        if attempt.is_fenced or attempt.stop_requested:
            self.end(attempt, StoppedEarly())
            return
        self._queue.leave_slot(attempt)
        attempt.phase = AttemptPhase.ASSIGNED
        self.give_back(attempt)
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
            attempt.stop_requested = True  # should it be no longer ours to give back
            self.give_back(attempt)
        elif attempt.exit is not None and attempt.uploads_results:
            self._finalize(attempt, attempt.exit)
        else:
            for what in attempt.results:
                self._events.tell(attempt.ref, what)

    def _tell_again(self, attempt: LiveAttempt, from_seq: int) -> None:
        if attempt.phase is AttemptPhase.RUNNING:
            self._events.tell(attempt.ref, _STARTED)
        attempt.is_acknowledged = False
        for what in attempt.results:
            if seq_of(what) >= from_seq:
                self._events.tell(attempt.ref, what)

    def _stop(self, attempt: LiveAttempt) -> None:
        if attempt.stop_requested or attempt.phase is AttemptPhase.ENDED:
            return
        attempt.stop_requested = True
        log.info("attempt.stop_requested", **_names(attempt))
        self._interrupt(attempt)

    def _kill(self, attempt: LiveAttempt) -> None:
        if attempt.is_fenced:
            return
        attempt.is_fenced = True
        self._events.drop(attempt.ref)
        log.warning("attempt.fenced", **_names(attempt))
        if attempt.has_ended:
            self._remove([attempt])
            return
        self._interrupt(attempt)

    def _interrupt(self, attempt: LiveAttempt) -> None:
        """Whatever goes on with it is brought to its end."""
        if attempt.context is not None:
            attempt.context.cancelled.set()
        if attempt.is_handed_over and attempt.slot is not None and attempt.exit is None:
            self._executors[attempt.slot].stop(attempt.ref)
        elif attempt.is_waiting or attempt.is_held:
            self.end(attempt, StoppedEarly())

    def _note_deletable(self, attempt: LiveAttempt) -> None:
        if attempt.is_acknowledged and attempt.logs_complete:
            self._departures.note_deletable(attempt.ref)

    def _remove(self, attempts: Sequence[LiveAttempt]) -> None:
        for attempt in attempts:
            ref = attempt.ref
            self._live.pop(ref, None)
            self._departures.gone(ref)
            self._events.drop(ref)
            self._logs.drop(ref)
            if attempt.is_handed_over and attempt.slot is not None:
                self._executors[attempt.slot].forget(ref)
            if attempt.has_directory:
                self.rubbish.append(self._directory_of(ref))
        if attempts:
            self._intents.forget([attempt.ref for attempt in attempts])


def _names(attempt: LiveAttempt) -> dict[str, object]:
    return {
        "job": attempt.template.job_id,
        "task": attempt.template.spec.name,
        "index": attempt.ref.index,
        "attempt": attempt.ref.attempt,
    }
