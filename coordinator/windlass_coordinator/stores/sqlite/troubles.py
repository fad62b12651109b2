"""What an error of SQLite means: is it one caller's, does it pass, or is nothing safe any more.

After a failed fsync the kernel may have dropped the bytes and call the next fsync a success, so nobody may
try again in this process (promise P14): it must end, and the next one recovers from what is on the disk.
SQLite does not tell a read-only file system from a broken one; a small file written beside the database does.
"""

import errno
import os
import sqlite3
from enum import StrEnum
from pathlib import Path

_READ_ONLY_ERRNOS = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_PRIMARY_CODE = 0xFF
_PROBE_BYTES = 4096


class Trouble(StrEnum):
    """What is wrong."""

    CALLERS = "callers"
    """The statement of one caller: its neighbours are not concerned."""
    BUSY = "busy"
    """Somebody else holds the database, or memory is short: this passes."""
    FULL = "full"
    """There is no room on the disk."""
    READ_ONLY = "read_only"
    """Nothing can be written."""
    BROKEN = "broken"
    """The disk does not keep what was written, or the database is damaged."""


def judge(error: Exception, *, database: Path) -> Trouble:
    """What `error` of a verb or a commit means; anything but an error of SQLite is its caller's."""
    if not isinstance(error, sqlite3.Error):
        return Trouble.CALLERS
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the driver itself: a wrong number of values, a closed cursor
        return Trouble.CALLERS
    match code & _PRIMARY_CODE:
        case sqlite3.SQLITE_FULL:
            return Trouble.FULL
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return Trouble.READ_ONLY
        case sqlite3.SQLITE_IOERR:
            return _judge_io(code, database)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Trouble.BROKEN
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_NOMEM | sqlite3.SQLITE_PROTOCOL:
            return Trouble.BUSY
        case _:
            return Trouble.CALLERS


def _judge_io(code: int, database: Path) -> Trouble:
    if code in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC):
        return Trouble.BROKEN
    if code == sqlite3.SQLITE_IOERR_NOMEM:
        return Trouble.BUSY
    return _probe(database.parent)


def _probe(directory: Path) -> Trouble:
    """Why a write failed, found by another one that nobody needs."""
    file = directory / f"probe.{os.getpid()}"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(_PROBE_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            file.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _READ_ONLY_ERRNOS:
            return Trouble.READ_ONLY
        if error.errno in _FULL_ERRNOS:
            return Trouble.FULL
    return Trouble.BROKEN
