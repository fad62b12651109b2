"""Whether the stored output belongs to what the database knows."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from windlass_coordinator.admin.log_copies import LOGS_FOLDER
from windlass_coordinator.logstore.stream_file import load_stream
from windlass_proto.model.diagnosis import Finding, good, note, problem

_SHOWN = 3
_ENDS = """
SELECT t.task_key, a.idx, a.attempt, a.stdout_end, a.stderr_end
FROM attempts a JOIN tasks t ON t.task_key = a.task_key
WHERE t.job_key = ? AND a.state IN ('SUCCEEDED', 'FAILED', 'STOPPED') AND a.stdout_end IS NOT NULL"""
_INDEXES_PER_FOLDER = 1000


def look_at_logs(db: sqlite3.Connection, data: Path) -> Iterator[Finding]:
    """Folders without a job, and streams that are longer or shorter than what was written."""
    logs = data / LOGS_FOLDER
    if not logs.is_dir():
        yield note("logs.there", logs, "there is none (a restore without logs, or a new directory)")
        return
    jobs = dict(db.execute("SELECT job_id, job_key FROM jobs WHERE deleted_at IS NULL").fetchall())
    folders = {entry.name for entry in os.scandir(logs) if entry.is_dir()}
    orphans = sorted(folders - set(jobs))
    if orphans:
        yield note(
            "logs.orphaned",
            logs,
            f"{len(orphans)} folders belong to no job, such as {orphans[0]}",
            do="nothing: a running coordinator removes them at its next sweep",
        )
    else:
        yield good("logs.orphaned", logs, f"each of {len(folders)} folders belongs to a job")
    yield from _look_at_streams(db, logs, {job_id: jobs[job_id] for job_id in folders & set(jobs)})


def _look_at_streams(db: sqlite3.Connection, logs: Path, jobs: dict[str, int]) -> Iterator[Finding]:
    longer: list[str] = []
    shorter: list[str] = []
    for job_id, job_key in sorted(jobs.items()):
        for task_key, index, attempt, *ends in db.execute(_ENDS, (job_key,)):
            folder = logs / job_id / str(task_key) / str(index // _INDEXES_PER_FOLDER)
            for stream, end in zip(("stdout", "stderr"), ends, strict=True):
                stored = _stored_end(folder / f"{index}.{attempt}.{stream}")
                name = f"{job_id}/{task_key}/{index}.{attempt}.{stream}"
                if end is not None and stored > end:
                    longer.append(name)
                elif end is not None and stored < end:
                    shorter.append(name)
    if longer:
        yield problem(
            "logs.longer",
            logs,
            f"{len(longer)} streams hold more than was written, such as {', '.join(longer[:_SHOWN])}",
            do="the folder may be another coordinator's: compare it with a backup",
        )
    if shorter:
        yield note(
            "logs.shorter",
            logs,
            f"{len(shorter)} streams of ended attempts are not whole, such as {', '.join(shorter[:_SHOWN])}",
            do="nothing: they are shown as PARTIAL unless their agents still send the rest",
        )
    if not longer and not shorter:
        yield good("logs.streams", logs, "every ended command's output is whole")


def _stored_end(file: Path) -> int:
    try:
        stored_bytes, layout = load_stream(file)
    except FileNotFoundError:
        return 0
    return layout.end(stored_bytes)
