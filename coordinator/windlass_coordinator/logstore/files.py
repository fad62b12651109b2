"""The log store on a file system.

    <root>/<job_id>/<task_key>/<index // 1000>/<index>.<attempt>.<stdout|stderr>[.gaps]

Streams in use are kept open up to a limit, and their state is shared by all writers, because an agent that
dialled again may write to a stream whose old connection is not known to be dead yet. For streams that were
closed to make room, the store remembers where they ended, so that asking for a durable end costs no disk
access.
"""

import os
import re
import shutil
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from windlass_coordinator.logstore.base import (
    MAX_READ_BYTES,
    AppendOutcome,
    AppendVerdict,
    Gap,
    LogSlice,
    StreamKey,
)
from windlass_coordinator.logstore.disk import EarlyWriteback, read_whole, sync_directory
from windlass_coordinator.logstore.layout import Layout
from windlass_coordinator.logstore.stream_file import StreamFile, load_stream, sizes_of, unsynced
from windlass_proto.errors import Unavailable
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import LogStream

DEFAULT_OPEN_STREAMS = 256
"""Descriptors held; a quarter of the limit that many systems give a process."""
_REMEMBERED_ENDS = 65_536
"""About 20 MiB at most; agents ask for the ends of what they have sent within seconds."""
_REMEMBERED_DELETIONS = 4_096
"""Outlives the few seconds for which an admission of an attempt is believed."""
_INDEXES_PER_DIRECTORY = 1000
_OTHER = {LogStream.STDOUT: LogStream.STDERR, LogStream.STDERR: LogStream.STDOUT}
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class _ClosedEnd:
    """Where a stream ended when it was closed, and what its two files measured then."""

    end: int
    sizes: tuple[int, int]


class FileLogStore:
    """Implements LogStore."""

    def __init__(
        self,
        root: Path,
        *,
        max_open_streams: int = DEFAULT_OPEN_STREAMS,
        attempt_quota_bytes: int | None = None,
        on_broken: Callable[[str], None] = lambda why: None,
    ) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self._attempt_quota_bytes = attempt_quota_bytes
        self.on_broken = on_broken
        self._max_open_streams = max_open_streams
        self._writeback = EarlyWriteback()
        self._lock = threading.Lock()
        self._open: OrderedDict[StreamKey, StreamFile] = OrderedDict()
        self._closed_ends: OrderedDict[StreamKey, _ClosedEnd] = OrderedDict()
        self._deleted: OrderedDict[JobId, None] = OrderedDict()

    def open_writer(self) -> "FileLogWriter":
        return FileLogWriter(self)

    def durable_end(self, key: StreamKey) -> int:
        # Another coordinator may have written since.
        sizes = sizes_of(self._path(key))
        with self._lock:
            stream = self._open.get(key)
            if stream is not None and not stream.is_closed and stream.sizes == sizes:
                return stream.durable_end
            known = self._closed_ends.get(key)
            if known is not None and known.sizes == sizes:
                return known.end
        if sizes == (0, 0):
            return 0
        while (found := self.stream(key)) is not None:
            with found.lock:
                if not found.is_closed:
                    found.catch_up()
                    return found.durable_end
        return 0

    def read(self, key: StreamKey, *, offset: int, limit: int) -> LogSlice | Gap:
        end, layout = self._durable_layout(key)
        offset = max(0, offset)
        found = layout.at(offset, end=end)
        if isinstance(found, Gap):
            return found
        length = min(found.length, limit, MAX_READ_BYTES)
        if length <= 0:
            return LogSlice(offset=offset, data=b"")
        return LogSlice(offset=offset, data=self._read_bytes(key, length, found.position))

    def gaps(self, key: StreamKey) -> tuple[Gap, ...]:
        end, layout = self._durable_layout(key)
        return layout.below(end)

    def job_ids(self) -> list[JobId]:
        return [JobId(entry.name) for entry in os.scandir(self._root) if _SAFE_NAME.fullmatch(entry.name)]

    def delete_job(self, job_id: JobId) -> None:
        with self._lock:
            _remember(self._deleted, job_id, None, limit=_REMEMBERED_DELETIONS)
            for key in [key for key in self._open if key.job_id == job_id]:
                stream = self._open.pop(key)
                with stream.lock:
                    stream.close()
            for key in [key for key in self._closed_ends if key.job_id == job_id]:
                del self._closed_ends[key]
        shutil.rmtree(self._job_directory(job_id), ignore_errors=True)

    def close(self) -> None:
        with self._lock:
            while self._open:
                _, stream = self._open.popitem()
                with stream.lock:
                    stream.close()

    def stream(self, key: StreamKey) -> StreamFile | None:
        """The open stream, which may be closed by others until its lock is held; None if its job is
        deleted."""
        with self._lock:
            if key.job_id in self._deleted:
                return None
            stream = self._open.get(key)
            if stream is not None and not stream.is_closed:
                self._open.move_to_end(key)
                return stream
            stream = StreamFile(
                self._path(key),
                root=self._root,
                writeback=self._writeback,
                known_end=self._known_end(key),
                on_broken=self.on_broken,
            )
            self._closed_ends.pop(key, None)
            self._open[key] = stream
            self._open.move_to_end(key)
            self._make_room()
            return stream

    def has_quota_for(self, key: StreamKey, stored_bytes: int) -> bool:
        """Whether the attempt may store as much of this stream besides what there is of the other one."""
        if self._attempt_quota_bytes is None:
            return True
        other = replace(key, stream=_OTHER[key.stream])
        found = self._open.get(other)
        if found is not None and not found.is_closed:
            return stored_bytes + found.stored_bytes <= self._attempt_quota_bytes
        try:
            return stored_bytes + self._path(other).stat().st_size <= self._attempt_quota_bytes
        except OSError:
            return stored_bytes <= self._attempt_quota_bytes

    def _known_end(self, key: StreamKey) -> int | None:
        known = self._closed_ends.get(key)
        return known.end if known is not None and known.sizes == sizes_of(self._path(key)) else None

    def _make_room(self) -> None:
        """Closes streams used longest ago; those in use at this moment are passed over."""
        excess = len(self._open) - self._max_open_streams
        if excess <= 0:
            return
        for key in list(self._open)[:-1]:
            stream = self._open[key]
            if not stream.lock.acquire(blocking=False):
                continue
            try:
                if not stream.is_closed:
                    stream.sync()
                    stream.close()
                    closed = _ClosedEnd(stream.durable_end, stream.sizes)
                    _remember(self._closed_ends, key, closed, limit=_REMEMBERED_ENDS)
            finally:
                stream.lock.release()
            del self._open[key]
            excess -= 1
            if excess == 0:
                return

    def _durable_layout(self, key: StreamKey) -> tuple[int, Layout]:
        """The durable end and gaps that cover at least what lies below it. What another coordinator has
        written counts from the moment that it can be seen."""
        sizes = sizes_of(self._path(key))
        with self._lock:
            stream = self._open.get(key)
            if stream is not None and not stream.is_closed and stream.sizes == sizes:
                end = stream.durable_end
                return end, stream.layout
        try:
            stored_bytes, layout = load_stream(self._path(key))
        except FileNotFoundError:
            return 0, Layout()
        except OSError as error:
            raise _unreadable(self._path(key), error) from error
        return layout.end(stored_bytes), layout

    def _read_bytes(self, key: StreamKey, length: int, position: int) -> bytes:
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return b""
        try:
            return read_whole(descriptor, length, position)
        except OSError as error:
            raise _unreadable(self._path(key), error) from error
        finally:
            os.close(descriptor)

    def _job_directory(self, job_id: JobId) -> Path:
        if not _SAFE_NAME.fullmatch(job_id):
            raise ValueError(f"{job_id!r} is not a job id; only ids made by the coordinator appear in paths")
        return self._root / job_id

    def _path(self, key: StreamKey) -> Path:
        directory = (
            self._job_directory(key.job_id) / f"{key.task_key:d}" / f"{key.index // _INDEXES_PER_DIRECTORY:d}"
        )
        return directory / f"{key.index:d}.{key.attempt:d}.{key.stream.value}"


class FileLogWriter:
    """Implements LogWriter: remembers what it touched, so that one sync covers many appends."""

    def __init__(self, store: FileLogStore) -> None:
        self._store = store
        self._touched: dict[StreamKey, StreamFile] = {}

    def append(self, key: StreamKey, *, offset: int, data: bytes, crc32: int) -> AppendOutcome:
        if zlib.crc32(data) != crc32:
            return AppendOutcome(verdict=AppendVerdict.CORRUPT, end=self._store.durable_end(key))
        while (stream := self._store.stream(key)) is not None:
            with stream.lock:
                if stream.is_closed:
                    continue
                self._touched[key] = stream
                grown_to = stream.stored_bytes + max(0, offset + len(data) - stream.end)
                if grown_to > stream.stored_bytes and not self._store.has_quota_for(key, grown_to):
                    return AppendOutcome(verdict=AppendVerdict.QUOTA, end=stream.end)
                return stream.append(data, offset=offset)
        return AppendOutcome(verdict=AppendVerdict.GONE, end=0)

    def append_gap(self, key: StreamKey, *, offset: int, length: int, reason: str) -> AppendOutcome:
        while (stream := self._store.stream(key)) is not None:
            with stream.lock:
                if stream.is_closed:
                    continue
                self._touched[key] = stream
                return stream.append_gap(offset=offset, length=length, reason=reason)
        return AppendOutcome(verdict=AppendVerdict.GONE, end=0)

    def sync(self) -> None:
        streams = list(self._touched.values())
        if len(streams) > 1:
            for stream in streams:
                with stream.lock:
                    stream.begin_writeback()
            _sync_names(streams, self._store.on_broken)
        for stream in streams:
            with stream.lock:
                stream.sync()
        self._touched.clear()

    def close(self) -> None:
        self._touched.clear()


def _sync_names(streams: list[StreamFile], on_broken: Callable[[str], None]) -> None:
    """Puts the names of new files on disk, each directory once: many short outputs share theirs."""
    # Those of a job that was deleted meanwhile are closed, and their directories are gone.
    fresh = [stream for stream in streams if stream.has_new_name and not stream.is_closed]
    for directory in {directory for stream in fresh for directory in stream.directories}:
        try:
            sync_directory(directory)
        except OSError as error:
            raise unsynced(directory, error, on_broken) from error
    for stream in fresh:
        with stream.lock:
            stream.has_new_name = False


def _unreadable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"the log file {path} cannot be read now: {error.strerror}")


def _remember(memory: OrderedDict[_Key, _Value], key: _Key, value: _Value, *, limit: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > limit:
        memory.popitem(last=False)
