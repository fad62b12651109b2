"""The seam of task output: what a place that keeps stdout and stderr of attempts can do.

Offsets count the bytes a command produced (protocol.md, section 8). What is stored is a prefix of them with
declared gaps, it never shrinks, and an offset is told to an agent only when everything below it is on disk.
Every method blocks on the disk: call it from a worker thread. Implementations lie beside this file and pass
`tests/conformance`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from windlass_proto.errors import Unavailable
from windlass_proto.model.ids import JobId, TaskKey
from windlass_proto.model.states import LogStream

MAX_READ_BYTES = 1 << 20
"""Most bytes that one read returns, so that a reader of a long log does not fill the memory."""


class DiskRefused(Unavailable):
    """The disk did not take bytes; none of them count. The same again works when the disk does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamKey:
    """One output stream of one attempt."""

    job_id: JobId
    task_key: TaskKey
    index: int
    attempt: int
    stream: LogStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Bytes that were produced and will never be stored."""

    offset: int
    length: int
    reason: str

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSlice:
    """Stored bytes; empty at the end of what is stored."""

    offset: int
    data: bytes


class AppendVerdict(StrEnum):
    """What became of one append."""

    STORED = "STORED"
    """The stream has grown."""
    DUPLICATE = "DUPLICATE"
    """All of it was here before."""
    AHEAD = "AHEAD"
    """It begins beyond the end: send again from the end."""
    CORRUPT = "CORRUPT"
    """The bytes do not have the checksum they were sent with: send them again."""
    MISMATCH = "MISMATCH"
    """Bytes sent again differ from those stored, which were kept; what lay beyond them was stored."""
    GONE = "GONE"
    """The job's logs have been deleted."""
    QUOTA = "QUOTA"
    """The attempt's logs are as large as they may be: nothing of it was stored, only a gap will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendOutcome:
    """Answer to one append."""

    verdict: AppendVerdict
    end: int
    """Of the stream now; on disk after the writer's next `sync`."""


class LogWriter(Protocol):
    """Appends to any number of streams; belongs to one thread at a time."""

    def append(self, key: StreamKey, *, offset: int, data: bytes, crc32: int) -> AppendOutcome:
        """Adds what is new of `data`, which was produced at `offset`; safe to repeat. Raises DiskRefused."""

    def append_gap(self, key: StreamKey, *, offset: int, length: int, reason: str) -> AppendOutcome:
        """Declares that the bytes at `offset` will never come; safe to repeat. Raises DiskRefused."""

    def sync(self) -> None:
        """Puts on disk what this writer has touched since its last sync. Raises Unavailable when that cannot
        be known: then nothing since the last sync counts, and this writer is not to be used any more."""

    def close(self) -> None:
        """Ends the use of this writer; what was not synced may or may not be kept."""


class LogStore(Protocol):
    """Keeps the output of attempts; its methods may be called from several threads."""

    def open_writer(self) -> LogWriter:
        """A writer for one stream of requests."""

    def durable_end(self, key: StreamKey) -> int:
        """Everything below is on disk or declared a gap; 0 for an unknown stream."""

    def read(self, key: StreamKey, *, offset: int, limit: int) -> LogSlice | Gap:
        """What lies at `offset`: up to `limit` bytes, or the rest of a gap; an empty slice at the end."""

    def gaps(self, key: StreamKey) -> tuple[Gap, ...]:
        """All gaps below the durable end, in order."""

    def job_ids(self) -> list[JobId]:
        """The jobs of which anything is stored."""

    def delete_job(self, job_id: JobId) -> None:
        """Forgets all streams of a job; safe to repeat."""

    def close(self) -> None:
        """Lets go of every file; no other call may follow."""
