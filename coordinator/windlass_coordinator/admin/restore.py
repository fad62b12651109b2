"""`windlass-coordinator restore`: a new data directory from a backup, in an incarnation of its own.

The directory appears under its name when it is whole. The backup is only read; the number that was given out
is noted beside it, so that a second restore of it gives out another one (decision 0008).
"""

import argparse
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from windlass_coordinator.admin.console import Console
from windlass_coordinator.admin.database_copy import DATABASE_FILE, check_whole, sync_file, sync_folder
from windlass_coordinator.admin.log_copies import (
    LOGS_FOLDER,
    MANIFEST_FILE,
    CopiedLogs,
    check_manifest,
    restore_logs,
)
from windlass_coordinator.core.incarnations import next_incarnation
from windlass_coordinator.first_start import LOCK_FILE, is_held
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Store, Transaction
from windlass_proto.errors import Conflict, NotFound, Unavailable
from windlass_proto.failpoints import reach

NOTE_SUFFIX = ".restored"
"""The file beside a backup with the incarnations that its restores began, one a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What the new directory holds."""

    data: Path
    source: Path
    incarnation: int
    previous_incarnation: int
    jobs: int
    logs: CopiedLogs | None
    noted: bool
    """Whether the incarnation could be noted beside the backup."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="source", metavar="PATH", required=True, type=Path, help="what `backup` wrote"
    )
    parser.add_argument("--data", metavar="NEWDIR", required=True, type=Path, help="new or empty")
    parser.add_argument(
        "--logs", metavar="DIR", type=Path, help="take the commands' output from this `logs` folder instead"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Restores and tells about it."""
    report = restore(arguments.source, arguments.data, logs=arguments.logs)
    if arguments.json:
        console.print_json(report)
        return 0
    logs = "no logs" if report.logs is None else f"{report.logs.files} log files"
    console.print(
        f"{report.data}: {report.jobs} jobs, {logs}, incarnation {report.incarnation} "
        f"(was {report.previous_incarnation})"
    )
    console.print(f"start it: windlass-coordinator --data {report.data}")
    if not report.noted:
        console.print(
            f"note: {report.source} lies where nothing can be written: "
            "do not restore it again within the same minute"
        )
    return 0


def restore(source: Path, data: Path, *, logs: Path | None = None) -> RestoreReport:
    """Raises Conflict for a directory that is not empty and for a damaged, foreign, newer or live source;
    nothing is left behind then."""
    database = _database_of(source)
    _refuse_used(data)
    data = data.absolute()
    draft = data.with_name(f".{data.name}.restoring")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(mode=0o700, parents=True)
        report = _fill(draft, data, source, database, logs)
        for folder, _, _ in os.walk(draft):
            sync_folder(Path(folder))
        reach("coord.restore.before_rename")
        draft.rename(data)
        sync_folder(data.parent)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise Unavailable(f"{data} cannot be written: {error}") from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return report


def _database_of(source: Path) -> Path:
    database = source / DATABASE_FILE if source.is_dir() else source
    if not database.is_file():
        raise NotFound(f"there is no backup at {source}")
    if database.stat().st_size == 0:
        raise Conflict(f"{database} is empty, which no backup ever is")
    if is_held(database.with_name(LOCK_FILE)):
        raise Conflict(
            f"{database} belongs to a coordinator that runs: take a backup of it "
            f"(windlass-coordinator backup --data {database.parent} --to FILE) and restore that"
        )
    return database


def _refuse_used(data: Path) -> None:
    if data.exists() and not data.is_dir():
        raise Conflict(f"{data} is not a directory")
    if data.is_dir() and any(data.iterdir()):
        raise Conflict(f"{data} is not empty: a restore never replaces anything; name a new directory")


def _fill(draft: Path, data: Path, source: Path, database: Path, logs: Path | None) -> RestoreReport:
    target = draft / DATABASE_FILE
    for suffix in ("", "-wal"):
        part = database.with_name(database.name + suffix)
        if part.exists():
            shutil.copyfile(part, target.with_name(target.name + suffix))
            target.with_name(target.name + suffix).chmod(0o600)
    _check(target, source)
    previous, incarnation, jobs, noted = _begin_incarnation(target, source)
    sync_file(target)
    copied = _restore_logs(target, source, logs, draft)
    return RestoreReport(
        data=data,
        source=source,
        incarnation=incarnation,
        previous_incarnation=previous,
        jobs=jobs,
        logs=copied,
        noted=noted,
    )


def _check(database: Path, source: Path) -> None:
    try:
        check_whole(database)
    except Conflict as damage:
        raise Conflict(str(damage).replace(str(database), str(source))) from damage


def _begin_incarnation(database: Path, source: Path) -> tuple[int, int, int, bool]:
    try:
        store = open_store(f"sqlite:///{database}")
    except (Conflict, Unavailable) as refusal:
        raise type(refusal)(str(refusal).replace(str(database), str(source))) from refusal
    note = source.absolute().with_name(source.name + NOTE_SUFFIX)
    try:
        previous, incarnation = raise_incarnation(store, issued=_noted(note))
        jobs: int = store.run_now(lambda tx: tx.count_jobs())
    finally:
        store.close()
    return previous, incarnation, jobs, _write_note(note, incarnation)


def raise_incarnation(store: Store, *, issued: tuple[int, ...] = ()) -> tuple[int, int]:
    """Begins the next incarnation of an open store; returns the one before and it."""
    now = datetime.now(UTC)

    def verb(tx: Transaction) -> tuple[int, int]:
        previous = tx.incarnation()
        incarnation = next_incarnation((previous, *issued), now=now)
        if incarnation is None:
            raise Conflict(f"incarnation {previous} is the last one that there are fences for")
        tx.begin_incarnation(incarnation, now=now)
        return previous, incarnation

    return store.run_now(verb)


def _noted(note: Path) -> tuple[int, ...]:
    with suppress(OSError, ValueError):
        return tuple(int(line) for line in note.read_text().split())
    return ()


def _write_note(note: Path, incarnation: int) -> bool:
    """Before anything is handed out in this incarnation; a backup may lie where nothing can be written."""
    try:
        with note.open("a") as opened:
            opened.write(f"{incarnation}\n")
            opened.flush()
            os.fsync(opened.fileno())
    except OSError:
        return False
    return True


def _restore_logs(database: Path, source: Path, given: Path | None, draft: Path) -> CopiedLogs | None:
    if given is not None and not given.is_dir():
        raise NotFound(f"there is no folder {given} with logs")
    if given is None and (source / MANIFEST_FILE).is_file():
        check_manifest(source)
    logs = given or source / LOGS_FOLDER
    return restore_logs(database, logs, draft) if logs.is_dir() else None
