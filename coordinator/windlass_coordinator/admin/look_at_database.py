"""What can be told of a database without changing a byte of it.

SQLite would recover, checkpoint or make files when a database is opened as usual. So: while a coordinator has
it open, through a connection that can write nothing; else, when no log lies beside it, as a file that nobody
changes; else on a copy of both.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from windlass_coordinator.admin.books import audit_books
from windlass_coordinator.admin.database_copy import DATABASE_FILE
from windlass_coordinator.admin.look_at_logs import look_at_logs
from windlass_coordinator.admin.look_at_secrets import look_at_secrets
from windlass_coordinator.stores.schema.migrations import known_revisions
from windlass_coordinator.stores.sqlite.files import APPLICATION_ID
from windlass_proto.model.diagnosis import Finding, good, note, problem, unknown

_MAGIC = b"SQLite format 3\0"
_LARGE_LOG_BYTES = 256 << 20
_MANY_FREE_PAGES = 0.5
_RESTORE = (
    "keep this directory as it is, and restore the newest backup: "
    "windlass-coordinator restore --from BACKUP --data NEWDIR"
)


def look_at_database(data: Path, *, is_running: bool) -> list[Finding]:
    """Is it there, ours, whole, of this version; do its books add up; do the logs belong to it."""
    file = data / DATABASE_FILE
    found = _look_at_header(file)
    if found is not None:
        return [found]
    try:
        with _opened(file, is_running=is_running) as db:
            return _look_inside(db, data, file)
    except sqlite3.DatabaseError as error:
        return [problem("database.whole", file, f"it is damaged: {error}", do=_RESTORE)]
    except OSError as error:
        return [unknown("database.whole", file, f"it cannot be read: {error}")]


def _look_at_header(file: Path) -> Finding | None:
    """What can be told from the first bytes; None = it may be whole."""
    log = file.with_name(file.name + "-wal")
    if not file.exists():
        if log.exists() and log.stat().st_size:
            return problem(
                "database.there", file, f"it is missing, but its log {log.name} is there", do=_RESTORE
            )
        return problem(
            "database.there",
            file,
            "there is none",
            do="name the right directory, start a coordinator to make a new one, or restore a backup; "
            "with --store the database is PostgreSQL's, and there is none here",
        )
    if not file.is_file():
        return problem("database.there", file, "it is not a file", do=_RESTORE)
    try:
        with file.open("rb") as opened:
            head = opened.read(100)
    except OSError as error:
        return unknown(
            "database.there",
            file,
            f"it cannot be read: {error.strerror}",
            do="run this as the coordinator's user, or look at the disk",
        )
    if not head:
        return problem("database.whole", file, "it is empty, which no database of ours ever is", do=_RESTORE)
    if not head.startswith(_MAGIC):
        return problem("database.whole", file, "it is not a database at all", do=_RESTORE)
    return _look_at_length(file, head)


def _look_at_length(file: Path, head: bytes) -> Finding | None:
    page_bytes = int.from_bytes(head[16:18], "big")
    page_bytes = 1 << 16 if page_bytes == 1 else page_bytes
    pages = int.from_bytes(head[28:32], "big")
    length = file.stat().st_size
    has_log = file.with_name(file.name + "-wal").exists()
    if not has_log and page_bytes and length < page_bytes * pages:
        return problem(
            "database.whole",
            file,
            f"it was cut: {length} of {page_bytes * pages} bytes are there",
            do=_RESTORE,
        )
    return None


@contextmanager
def _opened(file: Path, *, is_running: bool) -> Iterator[sqlite3.Connection]:
    log = file.with_name(file.name + "-wal")
    uri = file.absolute().as_uri()
    if is_running:
        with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)) as db:
            yield db
        return
    if not (log.exists() and log.stat().st_size):
        with closing(sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)) as db:
            yield db
        return
    with tempfile.TemporaryDirectory(prefix="windlass-doctor-") as folder:
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        shutil.copyfile(log, copy.with_name(log.name))
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            yield db


def _look_inside(db: sqlite3.Connection, data: Path, file: Path) -> list[Finding]:
    db.execute("BEGIN")
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if mark != APPLICATION_ID:
        holds = ", ".join(sorted(tables)[:3]) or "nothing"
        return [
            problem(
                "database.ours",
                file,
                f"it is a database of another program (it holds {holds})",
                do="name the right data directory; if this is the right one, restore a backup",
            )
        ]
    found = [
        good("database.ours", file, "it is a database of Windlass"),
        _schema(db, file),
        _integrity(db, file),
    ]
    if any(finding.do == _RESTORE for finding in found) or _schema_is_foreign(db):
        return found
    return [
        *found,
        _log(file),
        _free_pages(db, file),
        *_tokens(db, file),
        look_at_secrets(db, data),
        *audit_books(db, file),
        *look_at_logs(db, data),
    ]


def _revision(db: sqlite3.Connection) -> str:
    row = db.execute("SELECT version_num FROM alembic_version").fetchone()
    return "" if row is None else str(row[0])


def _schema_is_foreign(db: sqlite3.Connection) -> bool:
    """Another version's tables may lack what we would ask."""
    return _revision(db) != known_revisions()[-1]


def _schema(db: sqlite3.Connection, file: Path) -> Finding:
    revision, known = _revision(db), known_revisions()
    if revision not in known:
        return problem(
            "database.schema",
            file,
            f"its schema {revision} is newer than this program's ({known[-1]})",
            do="use the version of windlass-coordinator that wrote it, or a newer one",
        )
    if revision != known[-1]:
        return note(
            "database.schema",
            file,
            f"its schema {revision} is older than this program's ({known[-1]})",
            do="back it up, then start the coordinator: it brings the schema up to date",
        )
    return good("database.schema", file, f"its schema is this program's ({revision})")


def _integrity(db: sqlite3.Connection, file: Path) -> Finding:
    wrong = [row[0] for row in db.execute("PRAGMA integrity_check(5)")]
    if wrong != ["ok"]:
        return problem("database.whole", file, f"it is damaged: {'; '.join(wrong)}", do=_RESTORE)
    strays = db.execute("PRAGMA foreign_key_check").fetchmany(5)
    if strays:
        return problem(
            "database.whole", file, f"rows of {strays[0][0]} point to rows that are not there", do=_RESTORE
        )
    return good("database.whole", file, "every page and index is whole")


def _log(file: Path) -> Finding:
    log = file.with_name(file.name + "-wal")
    length = log.stat().st_size if log.exists() else 0
    if length > _LARGE_LOG_BYTES:
        return problem(
            "database.log",
            log,
            f"it has {length >> 20} MiB: something reads without end, or a backup runs",
            do="end what reads; if nothing does, restart the coordinator",
        )
    return good("database.log", log, f"it has {length} bytes")


def _free_pages(db: sqlite3.Connection, file: Path) -> Finding:
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    size = db.execute("PRAGMA page_size").fetchone()[0]
    if pages and free / pages > _MANY_FREE_PAGES and free * size > _LARGE_LOG_BYTES:
        return note(
            "database.free_pages",
            file,
            f"{free * size >> 20} MiB of it are free for new records",
            do="to give them back: stop the coordinator, run `sqlite3 windlass.db VACUUM`, start it",
        )
    return good("database.free_pages", file, f"{free} of {pages} pages are free")


def _tokens(db: sqlite3.Connection, file: Path) -> Iterator[Finding]:
    admins = db.execute("SELECT count(*) FROM credentials WHERE kind = 'wla' AND revoked = 0").fetchone()[0]
    if admins == 0:
        yield note(
            "token.known", file, "no admin token is known", do="remove admin.token, start the coordinator"
        )
    elif admins > 1:
        yield note("token.known", file, f"{admins} admin tokens are good: one for each admin.token ever made")
    else:
        yield good("token.known", file, "one admin token is good")
    stale = db.execute(
        "SELECT count(*) FROM credentials WHERE kind = 'wlj' AND revoked = 0 AND uses_left > 0 "
        "AND expires_at < 1000000 * unixepoch()"
    ).fetchone()[0]
    if stale:
        yield note("token.stale", file, f"{stale} join tokens have expired unused")
    newest = db.execute("SELECT coalesce(max(at), 0) / 1000000 - unixepoch() FROM facts").fetchone()[0]
    if newest > 60:
        yield problem(
            "clock",
            file,
            f"this machine's clock is {newest} s behind the newest record",
            do="set the clock (NTP); leases do not depend on it, but shown times and retention do",
        )
    else:
        yield good("clock", file, "this machine's clock is not behind the newest record")
