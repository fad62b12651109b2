"""Attempts that are prepared and finalized, as `runner/slow_attempts.py`, with scripted steps."""

from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING

from tests.simulation.scripts import read_script
from windlass_agent.core.run_plan import ExitRecord
from windlass_agent.runner.live_attempt import LiveAttempt, exited_event
from windlass_proto import failpoints
from windlass_proto.model.events import Finalized, FinalizeFailed, PrepareFailed, Preparing
from windlass_proto.model.failures import FailureKind

if TYPE_CHECKING:
    from tests.simulation.agent import Agent


class _Steps:
    """Stands where the runner looks for a step that can be cancelled."""

    def __init__(self) -> None:
        self.cancelled = Event()


class SlowPath:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent

    def prepare(self, attempt: LiveAttempt) -> None:
        self._agent.reporter.tell(attempt.ref, Preparing())
        attempt.context = _Steps()  # type: ignore[assignment]  # all that the runner uses of it
        script = read_script(attempt.template.argv)
        self._agent.after(
            script.prepare_s * self._agent.world.rng.uniform(0.5, 1.5), lambda: self._prepared(attempt)
        )

    def finalize(self, attempt: LiveAttempt, record: ExitRecord) -> None:
        attempt.context = _Steps()  # type: ignore[assignment]  # all that the runner uses of it
        if record.kind is None:
            attempt.results = (exited_event(record, finalizing=True),)
            self._agent.reporter.tell(attempt.ref, attempt.results[0])
        script = read_script(attempt.template.argv)
        delay = script.upload_s * self._agent.world.rng.uniform(0.5, 1.5)
        self._agent.after(delay, lambda: self._uploaded(attempt, record))

    def _prepared(self, attempt: LiveAttempt) -> None:
        course = self._agent.runner.course
        attempt.context = None
        failpoints.reach("agent.prepare.after_steps")
        if attempt.is_fenced or attempt.stop_requested or attempt.is_preempted:
            course.end_early(attempt)
            return
        script, ref = read_script(attempt.template.argv), attempt.ref
        if script.prepare_fails and script.is_bad(ref.index, ref.attempt):
            kind = FailureKind(script.prepare_fails)
            course.end(attempt, PrepareFailed(kind=kind, reason="as its script says"))
            return
        directory = self._agent.node.disk.attempt(ref)
        plan = attempt.template.plain_plan(ref, str(directory), attempt.gpus)
        course.hand_over(attempt, replace(plan, work_dir=str(directory / "work")))

    def _uploaded(self, attempt: LiveAttempt, record: ExitRecord) -> None:
        attempt.context = None
        failpoints.reach("agent.finalize.after_steps")
        if record.kind is not None:
            attempt.results = (exited_event(record, finalizing=False),)
        else:
            fails = read_script(attempt.template.argv).upload_fails
            last = FinalizeFailed(reason="as its script says") if fails else Finalized()
            attempt.results = (exited_event(record, finalizing=True), last)
        self._agent.runner.course.finish(attempt)
