"""The attempts that this node holds, and their way out: told, acknowledged, given back, forgotten.

What runs where is the runner's business (`attempt_runner`); here is what has to be known of an attempt until
the coordinator does not need it any more, and what goes with it then.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import structlog

from windlass_agent.containers.outcome import image_digest_of
from windlass_agent.core.attempt_phases import seq_of
from windlass_agent.runner.departures import Departures
from windlass_agent.runner.executor import EventSink, Executor, Intents, LogSink
from windlass_agent.runner.live_attempt import LiveAttempt
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto.failpoints import reach
from windlass_proto.model.assignments import InventoryItem
from windlass_proto.model.events import Exited, Happening, LostOnNode, Started
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import AttemptPhase, LogStream

_STARTED = Started()

log = structlog.get_logger()


class AttemptTable:
    def __init__(
        self,
        executors: Sequence[Executor],
        *,
        intents: Intents,
        events: EventSink,
        logs: LogSink,
        directory_of: Callable[[AttemptRef], Path],
    ) -> None:
        self._executors, self._intents, self._events, self._logs = executors, intents, events, logs
        self._directory_of = directory_of
        self._live: dict[AttemptRef, LiveAttempt] = {}
        self.departures = Departures()
        self.get = self._live.get
        self.rubbish: list[Path] = []
        """Directories of forgotten attempts, to be removed by whoever has the time."""

    def __contains__(self, ref: AttemptRef) -> bool:
        return ref in self._live

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveAttempt]:
        return iter(self._live.values())

    def put(self, attempt: LiveAttempt) -> None:
        self._live[attempt.ref] = attempt

    def inventory(self) -> list[InventoryItem]:
        return [attempt.inventory_item() for attempt in self if not attempt.is_fenced]

    def remove(self, attempts: Sequence[LiveAttempt]) -> None:
        """Nobody needs them any more: records, output and directory go too."""
        if not attempts:
            return
        reach("agent.forget.before_write")
        self._intents.forget([attempt.ref for attempt in attempts])
        reach("agent.forget.after_write")
        for attempt in attempts:
            ref = attempt.ref
            self._live.pop(ref, None)
            self.departures.gone(ref)
            self._events.drop(ref)
            self._logs.drop(ref)
            if attempt.is_handed_over and attempt.slot is not None:
                self._executors[attempt.slot].forget(ref)
            if attempt.has_directory:
                self.rubbish.append(self._directory_of(ref))

    # Telling

    def tell(self, attempt: LiveAttempt, what: Happening) -> None:
        self._events.tell(attempt.ref, what)

    def started(self, attempt: LiveAttempt) -> Started:
        """With what only the node knows about it."""
        if attempt.template.spec.container is None:
            return _STARTED
        return Started(image_digest=image_digest_of(self._directory_of(attempt.ref)))

    def tell_again(self, attempt: LiveAttempt, from_seq: int) -> None:
        if attempt.phase is AttemptPhase.RUNNING or attempt.template.spec.container is not None:
            self._events.tell(attempt.ref, self.started(attempt))
        attempt.is_acknowledged = False
        ends = _log_ends(attempt)
        if ends is not None:
            # Whoever asks may have been restored from a backup: it may lack output that it had, too. What it
            # has costs one answer.
            attempt.logs_complete = False
            self._logs.drop(attempt.ref)
            self.watch_logs(attempt)
            self.logs_ended(attempt, ends)
        for what in attempt.results:
            if seq_of(what) >= from_seq:
                self._events.tell(attempt.ref, what)

    def refuse(self, ref: AttemptRef) -> None:
        """Nothing of it is here, and if its assignment is on the way it will not start."""
        self.departures.refuse(ref)

    def give_back(self, attempt: LiveAttempt) -> None:
        """It has not started, and another node may have it."""
        self.departures.give_back(attempt.ref)

    def fence(self, attempt: LiveAttempt) -> None:
        """It counts for nothing any more."""
        attempt.is_fenced = True
        self._events.drop(attempt.ref)
        log.warning("attempt.fenced", **names(attempt))

    # Output

    def watch_logs(self, attempt: LiveAttempt) -> None:
        self._logs.watch(attempt.ref, keeps_spool=attempt.uploads_results)

    def logs_ended(self, attempt: LiveAttempt, ends: tuple[int, int]) -> None:
        if attempt.is_fenced:
            self._logs.drop(attempt.ref)
        else:
            self._logs.ended(attempt.ref, ends)

    def logs_complete(self, ref: AttemptRef) -> None:
        attempt = self._live.get(ref)
        if attempt is not None:
            attempt.logs_complete = True
            self.note_deletable(attempt)

    def spooled(self, attempt: LiveAttempt) -> tuple[int, int]:
        """As far as the files show, how much it wrote to stdout and stderr: for lack of an exit record."""
        directory = self._directory_of(attempt.ref)
        out, err = (
            OutputSpool(directory, stream).produced_end() for stream in (LogStream.STDOUT, LogStream.STDERR)
        )
        return out, err

    def acknowledged(self, attempt: LiveAttempt) -> None:
        """The coordinator has its last event."""
        attempt.is_acknowledged = True
        self.note_deletable(attempt)

    def note_deletable(self, attempt: LiveAttempt) -> None:
        if attempt.is_acknowledged and attempt.logs_complete:
            self.departures.note_deletable(attempt.ref)

    def ended(self, refs: Iterable[AttemptRef]) -> tuple[list[LiveAttempt], list[LiveAttempt]]:
        """Of those that are here: which have ended, and which have not."""
        found = [attempt for ref in refs if (attempt := self._live.get(ref)) is not None]
        return [one for one in found if one.has_ended], [one for one in found if not one.has_ended]


def _log_ends(attempt: LiveAttempt) -> tuple[int, int] | None:
    """What it was told to have written; None when it wrote nothing."""
    for what in attempt.results:
        if isinstance(what, Exited | LostOnNode):
            return what.stdout_end, what.stderr_end
    return None


def names(attempt: LiveAttempt) -> dict[str, object]:
    """For the log."""
    return {
        "job": attempt.template.job_id,
        "task": attempt.template.spec.name,
        "index": attempt.ref.index,
        "attempt": attempt.ref.attempt,
    }
