"""What the log store asks of the operating system: private directories, whole writes, and early write-back.

`sync_file_range` is not in the standard library. Starting the write-back of bytes as they arrive makes the
`fdatasync` that follows short: measured on a virtual disk, 8 MiB took 1 ms instead of 5-12 ms, and for 200
one-line files 80 us each instead of 200 us. It promises nothing about durability, so doing nothing where it
is missing is right too.
"""

import ctypes
import os
from pathlib import Path

_SYNC_FILE_RANGE_WRITE = 2


def make_private_directories(directory: Path, *, above: Path) -> None:
    """Makes `directory` and what is missing between it and `above`, open to nobody else (0700)."""
    if directory == above or directory.is_dir():
        return
    make_private_directories(directory.parent, above=above)
    directory.mkdir(mode=0o700, exist_ok=True)


def write_whole(descriptor: int, data: bytes, position: int) -> None:
    """Writes all of `data` at `position`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view = view[written:]
        position += written


def read_whole(descriptor: int, length: int, position: int) -> bytes:
    """Reads `length` bytes at `position`, fewer only at the end of the file."""
    parts: list[bytes] = []
    while length > 0:
        part = os.pread(descriptor, length, position)
        if not part:
            break
        parts.append(part)
        position += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def sync_directory(directory: Path) -> None:
    """Puts the entries of a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class EarlyWriteback:
    """Tells the kernel to begin writing dirty bytes to the disk, without waiting for it."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._call = getattr(library, "sync_file_range", None)
        if self._call is not None:
            self._call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

    def begin(self, descriptor: int, *, position: int, length: int) -> None:
        """Begins with `length` bytes at `position`; a refusal is of no consequence."""
        if self._call is not None:
            self._call(descriptor, position, length, _SYNC_FILE_RANGE_WRITE)
