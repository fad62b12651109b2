"""Attempts that wait for a slot, in the order of their arrival, and what follows for asking for more."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from windlass_agent.core.prefetch import Demand, PrefetchLimits, demand, prefetch_target, updated_run_time
from windlass_agent.core.slots import HandOverLimits, SlotBook
from windlass_agent.runner.live_attempt import LiveAttempt
from windlass_agent.runner.task_template import TaskTemplate
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.resources import NodeCapacity


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    prefetch: PrefetchLimits
    hand_over: HandOverLimits
    give_back_after_s: float
    """What could not start for this long is given back."""


class StartQueue:
    def __init__(
        self,
        capacity: NodeCapacity,
        settings: QueueSettings,
        *,
        clock: Callable[[], float],
        gpus: Sequence[str] = (),
    ) -> None:
        self.capacity = capacity
        self._settings, self._clock = settings, clock
        self._book = SlotBook(capacity, settings.hand_over, gpus=gpus)
        self._waiting: deque[LiveAttempt] = deque()
        self._waiting_count = 0
        self._run_time_s: float | None = None
        self._target = 0

    @property
    def has_queued(self) -> bool:
        """Whether an exit would be followed by a start without the coordinator's help."""
        return self._waiting_count > 0 or self._book.queued > 0

    @property
    def has_room(self) -> bool:
        """Whether `demand` may be urgent now; cheap enough to be asked after every exit."""
        return self._book.free > 0 or (self._waiting_count + self._book.queued) * 2 <= self._target

    def demand(self) -> Demand:
        limits = self._settings.prefetch
        brisk = self._book.brisk(now_s=self._clock(), patience_s=limits.ahead.total_seconds())
        self._target = prefetch_target(brisk, self._run_time_s, limits)
        return demand(
            free_slots=self._book.free,
            target=self._target,
            waiting=self._waiting_count + self._book.queued,
        )

    def withhold(self, number: int, is_unusable: bool) -> None:
        """Whether nothing may start in this slot for now; may be said again."""
        self._book.withhold(number, is_unusable)

    @property
    def withheld(self) -> int:
        return self._book.withheld

    def add(self, attempt: LiveAttempt) -> None:
        attempt.is_waiting = True
        self._waiting.append(attempt)
        self._waiting_count += 1

    def remove(self, attempt: LiveAttempt) -> None:
        """It stays in the queue itself, which passes over what does not wait."""
        if attempt.is_waiting:
            attempt.is_waiting = False
            self._waiting_count -= 1

    def starts(self) -> Iterator[LiveAttempt]:
        """Takes the attempts that have got a slot just now, one after the other."""
        while self._waiting:
            attempt = self._waiting[0]
            if attempt.is_waiting:
                attempt.slot = self._place(attempt)
                if attempt.slot is None:
                    return
                attempt.gpus = self._book.gpus_of(attempt.ref)
                self.remove(attempt)
                self._waiting.popleft()
                yield attempt
            else:
                self._waiting.popleft()

    def occupy(self, attempt: LiveAttempt, number: int) -> None:
        """It was found in this slot when the agent started."""
        attempt.slot = number
        template = attempt.template
        self._book.occupy(
            number,
            attempt.ref,
            template.needs,
            exclusive=not template.is_plain,
            now_s=self._clock(),
            gpus=attempt.gpus,
        )

    def leave_slot(self, attempt: LiveAttempt) -> None:
        """May be called again for the same attempt."""
        if attempt.slot is not None:
            self._book.ended(attempt.slot, attempt.ref, now_s=self._clock())

    def observe(self, template: TaskTemplate, run_time_s: float) -> None:
        template.observe(run_time_s)
        self._run_time_s = updated_run_time(self._run_time_s, run_time_s)

    def stuck_in_keepers(self) -> list[tuple[int, AttemptRef]]:
        return self._book.stuck(now_s=self._clock(), patience_s=self._settings.give_back_after_s)

    def waiting_too_long(self) -> list[LiveAttempt]:
        latest_s = self._clock() - self._settings.give_back_after_s
        return [one for one in self._waiting if one.is_waiting and one.accepted_at_s < latest_s]

    def _place(self, attempt: LiveAttempt) -> int | None:
        template = attempt.template
        return self._book.place(
            attempt.ref,
            template.needs,
            expected_s=template.run_time_s or self._run_time_s,
            exclusive=not template.is_plain,
            now_s=self._clock(),
        )
