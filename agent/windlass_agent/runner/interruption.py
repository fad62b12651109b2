"""Brings attempts to an early end: they were stopped, count no more, or the machine goes away."""

from collections.abc import Callable, Sequence

import structlog

from windlass_agent.runner.attempt_table import AttemptTable, names
from windlass_agent.runner.executor import Executor
from windlass_agent.runner.live_attempt import LiveAttempt
from windlass_agent.runner.start_queue import StartQueue
from windlass_proto.model.events import StoppedEarly
from windlass_proto.model.states import AttemptPhase

_TELL_S = 1.0
"""Before the machine goes, for telling how its commands ended."""

log = structlog.get_logger()


class Interruption:
    def __init__(
        self,
        executors: Sequence[Executor],
        table: AttemptTable,
        queue: StartQueue,
        *,
        end: Callable[[LiveAttempt, StoppedEarly], None],
        clock: Callable[[], float],
    ) -> None:
        """`end` is called for what nothing goes on with: it ends at once."""
        self._executors, self._table, self._queue = executors, table, queue
        self._end, self._clock = end, clock
        self._leaves_at_s: float | None = None

    @property
    def is_leaving(self) -> bool:
        return self._leaves_at_s is not None

    def stop(self, attempt: LiveAttempt) -> None:
        if attempt.phase is AttemptPhase.ENDED and attempt.context is not None:
            attempt.context.cancelled.set()  # its results are not wanted any more
        if attempt.stop_requested or attempt.phase is AttemptPhase.ENDED:
            return
        attempt.stop_requested = True
        log.info("attempt.stop_requested", **names(attempt))
        self._interrupt(attempt)

    def kill(self, attempt: LiveAttempt) -> None:
        """It is fenced: nothing of it is told."""
        if attempt.is_fenced:
            return
        self._table.fence(attempt)
        if attempt.has_ended:
            self._table.remove([attempt])
            return
        self._interrupt(attempt)

    def preempt_all(self, within_s: float) -> None:
        """The machine goes away; nothing may start from now on."""
        self._leaves_at_s = self._clock() + within_s
        grace_s = max(0.0, within_s - _TELL_S)
        for attempt in list(self._table):
            self._preempt(attempt, grace_s)

    def recall(self, attempt: LiveAttempt) -> None:
        """From its keeper, where it has not begun."""
        if not attempt.is_recalled and attempt.slot is not None:
            attempt.is_recalled = True
            self._executors[attempt.slot].stop(attempt.ref)

    def give_back_waiting(self, attempt: LiveAttempt) -> None:
        self._queue.remove(attempt)
        self._table.give_back(attempt)

    def _preempt(self, attempt: LiveAttempt, grace_s: float) -> None:
        """What has its result keeps it; what has not begun is given back."""
        if attempt.phase is AttemptPhase.ENDED or attempt.stop_requested or attempt.is_fenced:
            return
        if attempt.is_waiting:
            self.give_back_waiting(attempt)
        elif attempt.phase is AttemptPhase.ASSIGNED and attempt.is_handed_over:
            self.recall(attempt)
        elif not attempt.is_held:
            attempt.is_preempted = True
            self._interrupt(attempt, grace_s=grace_s)

    def _interrupt(self, attempt: LiveAttempt, *, grace_s: float | None = None) -> None:
        """Whatever goes on with it is brought to its end."""
        if attempt.context is not None:
            attempt.context.cancelled.set()
        if attempt.is_handed_over and attempt.slot is not None and attempt.exit is None:
            self._executors[attempt.slot].stop(attempt.ref, grace_s=grace_s)
        elif attempt.is_waiting or attempt.is_held:
            self._end(attempt, StoppedEarly())
