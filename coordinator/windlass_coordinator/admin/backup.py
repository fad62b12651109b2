"""`windlass-coordinator backup`: one file (or folder) to go on from, taken while the coordinator runs."""

import argparse
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from windlass_coordinator.admin.console import Console
from windlass_coordinator.admin.database_copy import (
    DATABASE_FILE,
    check_whole,
    copy_database,
    sync_file,
    sync_folder,
)
from windlass_coordinator.admin.log_copies import LOGS_FOLDER, CopiedLogs, copy_logs
from windlass_coordinator.stores.sqlite.files import APPLICATION_ID
from windlass_proto.errors import Conflict, NotFound, Unavailable
from windlass_proto.failpoints import reach


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """What was written."""

    path: Path
    taken_at: datetime
    database_bytes: int
    jobs: int
    incarnation: int
    schema: str
    logs: CopiedLogs | None
    took_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", required=True, type=Path, help="the coordinator's data")
    parser.add_argument(
        "--to",
        metavar="PATH",
        required=True,
        type=Path,
        help="the new file (with --with-logs: folder); in a folder that exists it gets a name of its own",
    )
    parser.add_argument("--with-logs", action="store_true", help="also what the commands wrote")
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Backs up and tells about it."""
    report = back_up(
        arguments.data, arguments.to, with_logs=arguments.with_logs, on_progress=console.progress("backup")
    )
    if arguments.json:
        console.print_json(report)
        return 0
    logs = "" if report.logs is None else f", {report.logs.files} log files ({report.logs.bytes} bytes)"
    what = f"{report.jobs} jobs, {report.database_bytes} bytes of database{logs}"
    console.print(f"{report.path}: {what}; checked and whole")
    return 0


def back_up(
    data: Path, to: Path, *, with_logs: bool, on_progress: Callable[[int, int], None] = lambda _, __: None
) -> BackupReport:
    """Nothing is seen under the backup's name before it is whole, checked and on disk. Raises Conflict for a
    name that exists and for a damaged database, NotFound where there is none."""
    started, now = time.monotonic(), datetime.now(UTC)
    source = data / DATABASE_FILE
    if not source.is_file():
        raise NotFound(f"there is no {source}: name the data directory of a coordinator with --data")
    path = _name_for(to, now, with_logs=with_logs)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        logs = None
        if with_logs:
            draft.mkdir(mode=0o700)
            database = draft / DATABASE_FILE
            _copy_checked(source, database, now, on_progress)
            logs = copy_logs(database, data / LOGS_FOLDER, draft)
        else:
            database = draft
            _copy_checked(source, database, now, on_progress)
        report = _report(database, path, now, logs=logs, took_s=time.monotonic() - started)
        _sync_names(draft)
        reach("coord.backup.before_rename")
        draft.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(draft)
        raise Unavailable(f"{path} cannot be written: {error}") from error
    except BaseException:
        _remove(draft)
        raise
    return report


def _name_for(to: Path, now: datetime, *, with_logs: bool) -> Path:
    if to.is_dir():
        to = to / f"windlass-{now:%Y%m%dT%H%M%SZ}{'' if with_logs else '.db'}"
    if to.exists():
        raise Conflict(f"{to} exists: a backup never replaces anything; give another name")
    if not to.parent.is_dir():
        raise NotFound(f"there is no folder {to.parent} for the backup: make it first")
    return to.absolute()


def _copy_checked(source: Path, target: Path, now: datetime, on_progress: Callable[[int, int], None]) -> None:
    copy_database(source, target, on_progress=on_progress)
    with closing(sqlite3.connect(target)) as db:
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise Conflict(f"{source} is a database of another program")
        # Tells a backup from the database itself; nothing of it is needed to restore.
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('backed_up_at', ?)", (now.isoformat(),))
        db.commit()
    check_whole(target)
    sync_file(target)


def _report(
    database: Path, path: Path, now: datetime, *, logs: CopiedLogs | None, took_s: float
) -> BackupReport:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        jobs = db.execute("SELECT count(*) FROM jobs WHERE deleted_at IS NULL").fetchone()[0]
        incarnation = db.execute("SELECT value FROM meta WHERE key = 'incarnation'").fetchone()[0]
        schema = db.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    return BackupReport(
        path=path,
        taken_at=now,
        database_bytes=database.stat().st_size,
        jobs=jobs,
        incarnation=int(incarnation),
        schema=schema,
        logs=logs,
        took_s=round(took_s, 3),
    )


def _sync_names(draft: Path) -> None:
    if draft.is_dir():
        for folder, _, _ in os.walk(draft):
            sync_folder(Path(folder))


def _remove(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    for leftover in (draft, draft.with_name(draft.name + "-journal")):
        if leftover.is_file():
            leftover.unlink()
