"""Whether an attempt's output is whole: records say how much there was, the log store how much there is."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from windlass_coordinator.core.records import LogFacts
from windlass_coordinator.logstore.base import DiskRefused, LogStore, StreamKey
from windlass_coordinator.rpc.read_log import NOT_THERE
from windlass_proto.errors import Unavailable
from windlass_proto.model.states import LogStream

PATIENCE = timedelta(minutes=2)
"""How long a node is asked to keep an attempt of which it says that it has sent everything."""
_REMEMBERED = 65_536

_log = structlog.get_logger("windlass.logs")


class LogArchive:
    """Compares records with the log store; each question costs a look at the disk per stream."""

    def __init__(
        self,
        store: LogStore,
        *,
        patience: timedelta = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._patience_s = patience.total_seconds()
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_since: OrderedDict[StreamKey, float] = OrderedDict()

    def is_stored(self, facts: LogFacts) -> bool:
        """Whether every byte the command wrote is on disk (or declared a gap)."""
        return facts.stdout_end is not None and not self._missing(facts)

    def which_are_settled(self, known: Sequence[LogFacts | None]) -> list[bool]:
        """Whether the agent may delete each attempt, of which it says that it has sent everything.

        Without an exit record nobody knows how much there was: what has arrived is what there is. An attempt
        without a record (its job was deleted) is settled too.
        """
        return [facts is None or (facts.ended and self._is_settled(facts)) for facts in known]

    def _is_settled(self, facts: LogFacts) -> bool:
        missing = self._missing(facts)
        key = stream_key(facts, LogStream.STDOUT)
        if not missing:
            with self._lock:
                self._asked_since.pop(key, None)
            return True
        now_s = self._clock()
        with self._lock:
            since_s = self._asked_since.setdefault(key, now_s)
            while len(self._asked_since) > _REMEMBERED:
                self._asked_since.popitem(last=False)
        if now_s - since_s < self._patience_s:
            return False
        return self._give_up(missing)

    def _missing(self, facts: LogFacts) -> list[tuple[StreamKey, int, int]]:
        """The streams that end before they should: where they end and how much is missing."""
        found = []
        for stream, end in ((LogStream.STDOUT, facts.stdout_end), (LogStream.STDERR, facts.stderr_end)):
            if end:
                key = stream_key(facts, stream)
                durable_end = self._store.durable_end(key)
                if durable_end < end:
                    found.append((key, durable_end, end - durable_end))
        return found

    def _give_up(self, missing: Sequence[tuple[StreamKey, int, int]]) -> bool:
        """What was stored here once and is not after a restore, or what a power cut took from the node, is
        nowhere any more: it is said in the log, instead of the node keeping an empty attempt for ever."""
        writer = self._store.open_writer()
        try:
            for key, offset, length in missing:
                writer.append_gap(key, offset=offset, length=length, reason=NOT_THERE)
                _log.warning("log.given_up", job=key.job_id, attempt=key.attempt, missing_bytes=length)
            writer.sync()
        except (DiskRefused, Unavailable):
            return False  # asked again with the next heartbeat
        finally:
            writer.close()
        return True


def stream_key(facts: LogFacts, stream: LogStream) -> StreamKey:
    """Where the log store keeps a stream of this attempt."""
    return StreamKey(
        job_id=facts.job_id,
        task_key=facts.task_key,
        index=facts.index,
        attempt=facts.attempt,
        stream=stream,
    )
