"""One output stream as two files: the bytes without holes, and beside them the gaps as JSON lines.

A kill at any point leaves a state that goes on rightly:

- a torn write of bytes is a shorter file, and the agent sends the rest again;
- a gap is on disk before any byte behind it is written, or those bytes would be taken for the lost ones;
- a gap whose preceding bytes did not reach the disk was never acknowledged, and is cut off at the next open.

Several coordinators may have the same stream open, one after the other and for a moment at once, as its agent
dials another one. So each append holds the file's lock, and looks first whether another has written.
"""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from windlass_coordinator.logstore.base import AppendOutcome, AppendVerdict, DiskRefused, Gap
from windlass_coordinator.logstore.disk import (
    EarlyWriteback,
    make_private_directories,
    read_whole,
    sync_directory,
    write_whole,
)
from windlass_coordinator.logstore.layout import Layout, StoredRun, gap_line, read_gap_lines
from windlass_proto.errors import Unavailable
from windlass_proto.failpoints import reach

_OPEN_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_REASON_CHARS = 200
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MIN_WRITEBACK_BYTES = 4 << 20
"""Begun by itself for as much; in smaller pieces it costs twice the CPU (measured with 1 MiB)."""


def gaps_path(path: Path) -> Path:
    """Where the gaps of the stream at `path` are."""
    return path.with_name(path.name + ".gaps")


def sizes_of(path: Path) -> tuple[int, int]:
    """Of the bytes at `path` and of the gaps beside them; 0 for what is not there."""
    return _size(path), _size(gaps_path(path))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def load_stream(path: Path) -> tuple[int, Layout]:
    """Length of the bytes at `path` and the gaps beside them, read only; raises FileNotFoundError."""
    stored_bytes = path.stat().st_size
    layout, _ = read_gap_lines(_content(gaps_path(path)), stored_bytes=stored_bytes)
    return stored_bytes, layout


class StreamFile:
    """A stream open for appending. `lock` guards all but the attributes that readers look at."""

    def __init__(
        self,
        path: Path,
        *,
        root: Path,
        writeback: EarlyWriteback,
        known_end: int | None = None,
        on_broken: Callable[[str], None] = lambda why: None,
    ) -> None:
        """Opens or makes the file. `known_end` is where it ended when this process last synced it. Raises
        DiskRefused when there is no room for another file."""
        self._on_broken = on_broken
        self.lock = threading.Lock()
        self.is_closed = False
        self._has_failed = False
        self._path = path
        self._root = root
        self._writeback = writeback
        try:
            self._descriptor, is_new = _open_or_create(path, root=root)
        except OSError as error:
            raise _refused("open", path, error) from error
        try:
            self._gap_bytes = 0
            with self._alone():
                self.stored_bytes, self.layout = self._load()
            self._written_back = self.stored_bytes
            self.has_new_name = known_end is None
            self.durable_end = known_end or 0
            if not is_new and self.is_dirty:
                self._make_durable()
        except OSError as error:
            os.close(self._descriptor)
            raise _refused("read", path, error) from error
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def end(self) -> int:
        """End of what is written, on disk or not."""
        return self.layout.end(self.stored_bytes)

    @property
    def is_dirty(self) -> bool:
        """Whether a sync has something to do."""
        return self.has_new_name or self.durable_end < self.end

    def append(self, data: bytes, *, offset: int) -> AppendOutcome:
        """Stores what of `data` lies beyond the end; compares the rest with what is stored."""
        with self._alone():
            self._catch_up()
            return self._append(data, offset)

    def _append(self, data: bytes, offset: int) -> AppendOutcome:
        end = self.end
        if offset > end:
            return AppendOutcome(verdict=AppendVerdict.AHEAD, end=end)
        overlap = min(end - offset, len(data))
        differs = overlap > 0 and not self._holds(data[:overlap], offset=offset)
        if overlap < len(data):
            self._write(data[overlap:] if overlap else data)
        if differs:
            return AppendOutcome(verdict=AppendVerdict.MISMATCH, end=self.end)
        grown = overlap < len(data)
        return AppendOutcome(verdict=AppendVerdict.STORED if grown else AppendVerdict.DUPLICATE, end=self.end)

    def append_gap(self, *, offset: int, length: int, reason: str) -> AppendOutcome:
        """Declares what of the gap lies beyond the end; its line is on disk when this returns."""
        with self._alone():
            self._catch_up()
            return self._append_gap(offset, length, reason)

    def _append_gap(self, offset: int, length: int, reason: str) -> AppendOutcome:
        end = self.end
        if offset > end:
            return AppendOutcome(verdict=AppendVerdict.AHEAD, end=end)
        if offset + length <= end:
            return AppendOutcome(verdict=AppendVerdict.DUPLICATE, end=end)
        self._write_gap(Gap(offset=end, length=offset + length - end, reason=reason[:_MAX_REASON_CHARS]))
        return AppendOutcome(verdict=AppendVerdict.STORED, end=self.end)

    @property
    def sizes(self) -> tuple[int, int]:
        """Of the two files, as this process knows them."""
        return self.stored_bytes, self._gap_bytes

    def catch_up(self) -> None:
        """Takes in what other coordinators have written, and puts it on disk."""
        with self._alone():
            self._catch_up()
        self.sync()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        if sizes_of(self._path) != self.sizes:
            self.stored_bytes, self.layout = self._load()

    def begin_writeback(self) -> None:
        """Lets the disk begin with what is not on it yet."""
        length = self.stored_bytes - self._written_back
        if length > 0 and not self.is_closed:
            self._writeback.begin(self._descriptor, position=self._written_back, length=length)
            self._written_back = self.stored_bytes

    def sync(self) -> None:
        """Puts bytes and names on disk.

        When the disk refuses, the kernel may have dropped the bytes: only what was durable before counts, and
        this file is closed, so that the next use reads anew what there is.
        """
        if self._has_failed:
            raise Unavailable(f"the log file {self._path} was not synced: send again from its end")
        if self.is_closed or not self.is_dirty:
            return
        try:
            self._make_durable()
        except Unavailable:
            self._has_failed = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.layout.position(self.durable_end))
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the file without syncing it."""
        if not self.is_closed:
            self.is_closed = True
            os.close(self._descriptor)

    def _load(self) -> tuple[int, Layout]:
        stored_bytes = os.fstat(self._descriptor).st_size
        content = _content(gaps_path(self._path))
        layout, sound = read_gap_lines(content, stored_bytes=stored_bytes)
        if sound < len(content):
            os.truncate(gaps_path(self._path), sound)
        self._gap_bytes = sound
        return stored_bytes, layout

    def _holds(self, data: bytes, *, offset: int) -> bool:
        """Whether the stored bytes of this stretch equal `data`; what lies in a gap cannot be compared."""
        view, end = memoryview(data), offset + len(data)
        position = offset
        while position < end:
            found = self.layout.at(position, end=end)
            if isinstance(found, StoredRun):
                sent = view[position - offset : position - offset + found.length]
                if read_whole(self._descriptor, found.length, found.position) != sent:
                    return False
            position += found.length
        return True

    def _write(self, data: bytes) -> None:
        try:
            write_whole(self._descriptor, data, self.stored_bytes)
        except OSError as error:
            with contextlib.suppress(OSError):  # then the next write goes over it
                os.ftruncate(self._descriptor, self.stored_bytes)
            raise _refused("write", self._path, error) from error
        self.stored_bytes += len(data)
        reach("coord.log.after_write")
        if self.stored_bytes - self._written_back >= _MIN_WRITEBACK_BYTES:
            self.begin_writeback()

    def _write_gap(self, gap: Gap) -> None:
        descriptor, is_new = _open_or_create(gaps_path(self._path), root=self._root)
        try:
            before = os.fstat(descriptor).st_size
            try:
                write_whole(descriptor, gap_line(gap), before)
                os.fdatasync(descriptor)
                if is_new:
                    self._sync_names()
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise _refused("declare a gap in", self._path, error) from error
        finally:
            os.close(descriptor)
        self._gap_bytes = before + len(gap_line(gap))
        self.layout = self.layout.with_gap(gap)
        reach("coord.log.after_gap")

    def _make_durable(self) -> None:
        end = self.end
        try:
            os.fdatasync(self._descriptor)
            if self.has_new_name:
                self._sync_names()
        except OSError as error:
            raise unsynced(self._path, error, self._on_broken) from error
        reach("coord.log.after_sync")
        self.durable_end = end

    @property
    def directories(self) -> list[Path]:
        """All that hold a part of its name, up to the root of the log store."""
        parents = self._path.parents
        return list(parents[: parents.index(self._root) + 1])

    def _sync_names(self) -> None:
        for directory in self.directories:
            sync_directory(directory)
        self.has_new_name = False


def _open_or_create(path: Path, *, root: Path) -> tuple[int, bool]:
    """An open descriptor, and whether the file was made just now."""
    try:
        return os.open(path, _OPEN_FLAGS), False
    except FileNotFoundError:
        make_private_directories(path.parent, above=root)
        return os.open(path, _OPEN_FLAGS | os.O_CREAT, 0o600), True


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def unsynced(path: Path, error: OSError, on_broken: Callable[[str], None]) -> Unavailable:
    """A sync has failed, of which nobody knows what it has put on the disk. Unless the disk is only full, the
    kernel may have dropped the bytes and call the next sync a success: the process must end."""
    if error.errno not in _FULL:
        on_broken(f"the disk has failed the log files ({path}: {error.strerror})")
    return Unavailable(f"cannot sync {path} ({error.strerror}): it goes on when the disk is well again")


def _refused(what: str, path: Path, error: OSError) -> DiskRefused:
    return DiskRefused(
        f"cannot {what} the log file {path} ({error.strerror}): free or repair the disk, then it goes on by "
        "itself"
    )
