"""Attempts that need more than a keeper: prepared before their command, finalized after it.

Each runs as a task of its own, which is the supervisor that turns any unexpected failure into a result.
"""

import asyncio
from dataclasses import replace

import structlog

from windlass_agent.core.run_plan import CommandPlan, ExitRecord
from windlass_agent.runner.attempt_course import AttemptCourse
from windlass_agent.runner.executor import EventSink, LogSink
from windlass_agent.runner.live_attempt import LiveAttempt, exited_event
from windlass_agent.runner.step_runner import FinalRecord, StepRunner
from windlass_agent.runner.steps.base import StepContext, StepFailure
from windlass_proto.model.events import Finalized, FinalizeFailed, PrepareFailed, Preparing
from windlass_proto.model.failures import FailureKind

log = structlog.get_logger()


class SlowAttempts:
    def __init__(
        self,
        course: AttemptCourse,
        steps: StepRunner,
        group: asyncio.TaskGroup,
        *,
        events: EventSink,
        logs: LogSink,
    ) -> None:
        self._course, self._steps, self._group = course, steps, group
        self._events, self._logs = events, logs

    def prepare(self, attempt: LiveAttempt) -> None:
        """Up to the hand-over to the slot's keeper."""
        self._events.tell(attempt.ref, Preparing())
        context = self._steps.context(attempt.ref, attempt.template, attempt.gpus, slot=attempt.slot)
        if isinstance(context, StepFailure):
            self._course.end(attempt, PrepareFailed(kind=context.kind, reason=context.reason))
            return
        attempt.context = context
        self._group.create_task(self._prepare(attempt, context))

    def finalize(self, attempt: LiveAttempt, record: ExitRecord) -> None:
        """From the exit record to the last event."""
        context = self._steps.context(attempt.ref, attempt.template)
        if isinstance(context, StepFailure):
            self._finalized(attempt, record, FinalRecord(failure=context.reason))
            return
        attempt.context = context
        if not attempt.has_inputs:
            self._exited(attempt, record)
        self._group.create_task(self._finalize(attempt, context, record))

    async def _prepare(self, attempt: LiveAttempt, context: StepContext) -> None:
        try:
            outcome = await self._steps.prepare(context, attempt.template)
        except Exception as problem:  # the supervisor: an attempt must end, whatever is wrong with us
            log.exception("attempt.prepare_crashed", index=attempt.ref.index)
            outcome = StepFailure(kind=FailureKind.INFRA_PREPARE, reason=f"internal error: {problem!r}")
        if attempt.is_fenced or attempt.stop_requested or attempt.is_preempted:
            await self._steps.release(context)
            attempt.context = None
            self._course.end_early(attempt)
            return
        attempt.context = None
        match outcome:
            case StepFailure(kind=kind, reason=reason):
                self._course.end(attempt, PrepareFailed(kind=kind, reason=reason))
            case CommandPlan():
                self._course.hand_over(attempt, outcome)

    def _exited(self, attempt: LiveAttempt, record: ExitRecord) -> None:
        """The command went well; its results are on their way."""
        if record.kind is None and attempt.uploads_results:
            attempt.results = (exited_event(record, finalizing=True),)
            self._events.tell(attempt.ref, attempt.results[0])

    async def _finalize(self, attempt: LiveAttempt, context: StepContext, record: ExitRecord) -> None:
        try:
            record = await self._judged(attempt, context, record)
            if attempt.uploads_results:
                context.has_failed = record.kind is not None
                final = await self._steps.finalize(context, with_directories=not record.stopped)
            else:
                final = FinalRecord(failure="")
            await self._steps.release(context)
        except Exception as problem:  # the supervisor: an attempt must end, whatever is wrong with us
            log.exception("attempt.finalize_crashed", index=attempt.ref.index)
            final = FinalRecord(failure=f"internal error: {problem!r}")
            record = record if attempt.uploads_results else _without_result(record, final.failure)
        attempt.context = None
        self._finalized(attempt, record, final)

    async def _judged(self, attempt: LiveAttempt, context: StepContext, record: ExitRecord) -> ExitRecord:
        if not attempt.has_inputs:
            return record
        judged = await self._steps.judge(context, record)
        self._exited(attempt, judged)
        return judged

    def _finalized(self, attempt: LiveAttempt, record: ExitRecord, final: FinalRecord) -> None:
        self._logs.let_go(attempt.ref)
        if record.kind is not None or not attempt.uploads_results:
            failure = f"results were not uploaded: {final.failure}" if final.failure else ""
            note = "; ".join(filter(None, (failure, final.note)))
            attempt.results = (exited_event(record, finalizing=False, note=note),)
        else:
            exited = exited_event(record, finalizing=True)
            attempt.results = (exited, _finalized(final))
        self._course.finish(attempt)


def _finalized(final: FinalRecord) -> Finalized | FinalizeFailed:
    return FinalizeFailed(reason=final.failure) if final.failure else Finalized(note=final.note)


def _without_result(record: ExitRecord, reason: str) -> ExitRecord:
    """It ended well as far as its keeper knows, and that is not far enough."""
    return replace(record, kind=record.kind or FailureKind.INFRA_PREPARE, reason=reason)
