"""Whether SQLite's index of the write-ahead log is still the one that this process has made.

The index (`-shm`) is a file that SQLite maps into memory and never writes back itself. When the disk refuses
its pages the system may forget them, and read what the disk took last: an index of some earlier moment, whole
to look at. What was committed since would not be seen any more, and the next commit would write over it.

The index counts commits (`iChange`, at 8 in its header: sqlite.org/walformat.html), so one of an earlier
moment is known by its lower count. The log itself has everything, and is read anew when nobody has the
database open: so the process must end.
"""

import mmap
import os
import sys

from windlass_proto.errors import Unavailable

_COUNT = slice(8, 12)
_WRAPS_AT = 1 << 32


class LogIndex:
    """Watches the index of the database at `path`, which somebody here has open for as long as this is open:
    to close a file takes from this process the locks that SQLite has on it."""

    def __init__(self, path: str) -> None:
        """Raises Unavailable where SQLite could make none, as on some network file systems."""
        try:
            self._file = os.open(f"{path}-shm", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Unavailable(
                f"{path} has no write-ahead log: its file system must be a local disk's"
            ) from None
        self._header = mmap.mmap(self._file, mmap.PAGESIZE, prot=mmap.PROT_READ)
        self._noted = self._count()

    def note(self) -> None:
        """What is there now is right: called after each commit by whoever made it."""
        self._noted = self._count()

    @property
    def has_fallen_back(self) -> bool:
        """To an earlier moment than the one noted. Asked after the index was used, it vouches for that."""
        return (self._count() - self._noted) % _WRAPS_AT >= _WRAPS_AT // 2

    def close(self) -> None:
        """When nobody here has the database open any more."""
        self._header.close()
        os.close(self._file)

    def _count(self) -> int:
        return int.from_bytes(self._header[_COUNT], sys.byteorder)
