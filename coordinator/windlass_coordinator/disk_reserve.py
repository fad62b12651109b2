"""Room on the disk of the data directory that is kept for the day on which it is full (promise P14).

A file of zeros lies beside the database. While there is little room besides, submits are refused and logs
wait; when even the database has none left, the file is given up, so that results, stops and releases still
land. When there is room again the file is made anew, and everything goes on without a restart.
"""

import os
import threading
from pathlib import Path

import structlog

from windlass_coordinator.core.disk_space import DiskPolicy, is_short, may_put_aside

RESERVE_FILE = "reserve"

_MIB = 1 << 20
_log = structlog.get_logger()


class DiskReserve:
    """Of one data directory. Any thread may use it; `look` is to be called about once a second."""

    def __init__(self, directory: Path, policy: DiskPolicy) -> None:
        self._directory = directory
        self._policy = policy
        self._file = directory / RESERVE_FILE
        self._lock = threading.Lock()
        self.is_whole = True
        self.why_short: str | None = None
        """Why nothing new may be taken on, in one sentence."""

    def begin(self) -> None:
        """Before anything is written: a disk that is full already must not keep us from starting."""
        self.look()
        if self.why_short is not None:
            self.give_up()

    def look(self) -> None:
        """Finds out how much room there is, and puts the reserve aside when it is missing and fits."""
        with self._lock:
            try:
                free_bytes = self._free_bytes()
                self.is_whole = self._is_there() or self._put_aside(free_bytes)
                self._conclude(None if self.is_whole else "", self._free_bytes())
            except OSError as error:
                self._conclude(f"the directory {self._directory} cannot be used: {error.strerror}", 0)

    def give_up(self) -> bool:
        """Frees the reserve; False when it is gone already."""
        with self._lock:
            try:
                if not self._is_there():
                    return False
                self._file.unlink()
                self.is_whole = False
                self._conclude("", self._free_bytes())
            except OSError:
                return False
        _log.warning("disk.reserve_given_up", directory=str(self._directory))
        return True

    @property
    def free_bytes(self) -> int:
        """On the disk now; 0 when the directory cannot be looked at."""
        try:
            return self._free_bytes()
        except OSError:
            return 0

    def _conclude(self, trouble: str | None, free_bytes: int) -> None:
        was_short = self.why_short is not None
        if trouble:
            self.why_short = trouble
        elif is_short(self._policy, free_bytes=free_bytes, has_reserve=self.is_whole):
            self.why_short = self._sentence(free_bytes)
        else:
            self.why_short = None
        if self.why_short is not None and not was_short:
            _log.error("disk.short", directory=str(self._directory), free_bytes=free_bytes)
        elif self.why_short is None and was_short:
            _log.info("disk.has_room_again", directory=str(self._directory), free_bytes=free_bytes)

    def _sentence(self, free_bytes: int) -> str:
        needed = self._policy.spare_bytes + (0 if self.is_whole else self._policy.reserve_bytes)
        return (
            f"the disk of {self._directory} is full: {free_bytes / _MIB:.1f} MiB are free, "
            f"{needed / _MIB:.1f} MiB are needed; free some and it goes on by itself"
        )

    def _is_there(self) -> bool:
        try:
            return self._file.stat().st_size >= self._policy.reserve_bytes
        except FileNotFoundError:
            return False

    def _put_aside(self, free_bytes: int) -> bool:
        """Whether it is whole now; what did not fit is taken back at once."""
        if not may_put_aside(self._policy, free_bytes=free_bytes):
            return False
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if self._policy.reserve_bytes:
                os.posix_fallocate(descriptor, 0, self._policy.reserve_bytes)
        except OSError as error:
            self._file.unlink(missing_ok=True)
            _log.warning("disk.reserve_not_made", file=str(self._file), error=error.strerror)
            return False
        finally:
            os.close(descriptor)
        return True

    def _free_bytes(self) -> int:
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize
