"""Whether an attempt's output is whole: records say how much there was, the log store how much there is."""

from collections.abc import Sequence

from windlass_coordinator.core.records import LogFacts
from windlass_coordinator.logstore.base import LogStore, StreamKey
from windlass_proto.model.states import LogStream


class LogArchive:
    """Compares records with the log store; each question costs a look at the disk per stream."""

    def __init__(self, store: LogStore) -> None:
        self._store = store

    def is_stored(self, facts: LogFacts) -> bool:
        """Whether every byte the command wrote is on disk (or declared a gap)."""
        ends = {LogStream.STDOUT: facts.stdout_end, LogStream.STDERR: facts.stderr_end}
        return all(
            end == 0 or (end is not None and self._store.durable_end(stream_key(facts, stream)) >= end)
            for stream, end in ends.items()
        )

    def which_are_settled(self, known: Sequence[LogFacts | None]) -> list[bool]:
        """Whether the agent may delete each attempt, of which it says that it has sent everything.

        Without an exit record nobody knows how much there was: what has arrived is what there is. An attempt
        without a record (its job was deleted) is settled too.
        """
        return [
            facts is None or (facts.ended and (facts.stdout_end is None or self.is_stored(facts)))
            for facts in known
        ]


def stream_key(facts: LogFacts, stream: LogStream) -> StreamKey:
    """Where the log store keeps a stream of this attempt."""
    return StreamKey(
        job_id=facts.job_id,
        task_key=facts.task_key,
        index=facts.index,
        attempt=facts.attempt,
        stream=stream,
    )
