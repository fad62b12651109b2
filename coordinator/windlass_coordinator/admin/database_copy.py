"""Copies of a SQLite database that are whole: taken from one snapshot, checked, on disk."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from windlass_proto.errors import Conflict, Unavailable

DATABASE_FILE = "windlass.db"

_PAGES_PER_STEP = 2048
_BUSY_TIMEOUT_S = 10.0

Progress = Callable[[int, int], None]
"""(pages copied, pages in all)."""


def copy_database(source: Path, target: Path, *, on_progress: Progress) -> None:
    """Copies a database that may be written meanwhile to the new file `target`, which needs no other file.

    One read transaction is open from the first page to the last: a copy page by page without it would begin
    anew with each commit. A writer is not kept waiting by it; only its log grows until the copy is done.
    """
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(_open(source)) as original, closing(sqlite3.connect(target)) as copy:
            original.execute("BEGIN")
            original.execute("SELECT count(*) FROM sqlite_master").fetchone()
            # Nobody reads the copy before it is whole: it is synced once, at the end.
            copy.execute("PRAGMA synchronous = OFF")
            original.backup(
                copy,
                pages=_PAGES_PER_STEP,
                progress=lambda _, left, total: on_progress(total - left, total),
            )
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{source} cannot be copied to {target}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise Conflict(f"{source} is not a whole database: {error}") from error
    sync_file(target)


def _open(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S)
    db.execute("PRAGMA query_only = 1")
    return db


def check_whole(path: Path) -> None:
    """Reads every page of a copy. Raises Conflict that says what is wrong with it."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            found = [row[0] for row in db.execute("PRAGMA integrity_check(10)")]
            strays = db.execute("PRAGMA foreign_key_check").fetchmany(10)
    except sqlite3.DatabaseError as error:
        raise Conflict(f"{path} is not a whole database: {error}") from error
    if found != ["ok"]:
        raise Conflict(f"{path} is damaged: {'; '.join(found)}")
    if strays:
        raise Conflict(
            f"{path} is damaged: {len(strays)} or more rows point nowhere, first in {strays[0][0]}"
        )


def sync_file(path: Path) -> None:
    """Puts a file's bytes on disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Puts the names in a folder on disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
