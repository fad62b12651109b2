"""The files that a command left, read without trusting a single path.

Directories were the command's own: a link in the place of a file or of a directory on the way must not lead
the agent, which may be root, out of them. So every step of the way is opened by itself and never followed.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from windlass_agent.mounts.base import BadMapping
from windlass_agent.mounts.output_store import ChangedWhileRead

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a fifo would be waited for.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """Which bytes a file had: one that was written since has another."""

    inode: int
    size_bytes: int
    changed_ns: int
    """ctime: no program can set it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    name: str
    """From the directory on, with slashes."""
    state: FileState


class OpenFile:
    """A regular file that is being read; implements `output_store.OutputSource`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ChangedWhileRead("it is no regular file any more")
        self.state = _state(status)

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)

    def check(self, read_bytes: int) -> None:
        if read_bytes != self.state.size_bytes or _state(os.fstat(self._fd)) != self.state:
            raise ChangedWhileRead("it was written to")


@contextmanager
def open_below(root: Path, path: Path) -> Iterator[OpenFile]:
    """A file below the attempt's own directory `root`."""
    with _directory(root, path.parent) as parent:
        try:
            fd = os.open(path.name, _FILE, dir_fd=parent)
        except FileNotFoundError as problem:
            raise ChangedWhileRead("it is gone") from problem
        try:
            yield OpenFile(fd)
        finally:
            os.close(fd)


def is_regular(root: Path, path: Path) -> bool:
    """False where there is something else, or nothing. Raises OSError for a way that leads through a link."""
    try:
        with _directory(root, path.parent) as parent:
            return stat.S_ISREG(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def files_below(root: Path, directory: Path) -> tuple[list[FoundFile], list[str]]:
    """Regular files in the order of their names, and what is left out. A missing directory is empty."""
    found: list[FoundFile] = []
    left_out: list[str] = []
    try:
        with _directory(root, directory) as top:
            _walk(top, found, left_out)
    except FileNotFoundError:
        return [], []
    except OSError as problem:
        raise BadMapping(f"the output directory {directory.name!r} cannot be read: {problem}") from problem
    return sorted(found, key=lambda one: one.name), sorted(left_out)


def _walk(top: int, found: list[FoundFile], left_out: list[str]) -> None:
    for here, folders, names, fd in os.fwalk(".", dir_fd=top, onerror=_raise):
        for name in [*folders, *names]:
            path = os.path.normpath(os.path.join(here, name))
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                found.append(FoundFile(name=_text(path), state=_state(status)))
            elif not stat.S_ISDIR(status.st_mode):
                left_out.append(path.encode(errors="backslashreplace").decode())


def _text(path: str) -> str:
    """Object names are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="backslashreplace").decode()
        raise BadMapping(f"the output file '{shown}' has a name that is not UTF-8; rename it") from None
    return path


def _raise(problem: OSError) -> None:
    raise problem


@contextmanager
def _directory(root: Path, directory: Path) -> Iterator[int]:
    """A descriptor of `directory`, which lies below `root`, reached without any link."""
    parts: Sequence[str] = directory.relative_to(root).parts
    fd = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            inner = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _state(status: os.stat_result) -> FileState:
    return FileState(inode=status.st_ino, size_bytes=status.st_size, changed_ns=status.st_ctime_ns)
