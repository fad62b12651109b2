"""Copies of what commands wrote, for the attempts that a copy of the database knows.

The database is copied first: what an agent was told to forget is in the log store by then. Output of attempts
that the copy does not know is left out, because after a restore their numbers are given to other attempts.
"""

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from windlass_coordinator.logstore.disk import make_private_directories
from windlass_proto.errors import Conflict

LOGS_FOLDER = "logs"
MANIFEST_FILE = "manifest.jsonl"

_CHUNK_BYTES = 1 << 20
_STREAM_FILE = re.compile(r"(\d+)\.(\d+)\.(stdout|stderr)")
_ATTEMPT = "SELECT 1 FROM attempts WHERE task_key = ? AND idx = ? AND attempt = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedLogs:
    """What was copied."""

    files: int
    bytes: int


def known_streams(database: Path, logs: Path) -> Iterator[Path]:
    """Stream files below `logs`, relative to it, whose attempts are in the database."""
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
        for (job_id,) in db.execute("SELECT job_id FROM jobs WHERE deleted_at IS NULL ORDER BY job_key"):
            for file in sorted((logs / job_id).glob("*/*/*")):
                name = _STREAM_FILE.fullmatch(file.name)
                task = file.parent.parent.name
                if name is None or not task.isdigit():
                    continue
                if db.execute(_ATTEMPT, (int(task), int(name[1]), int(name[2]))).fetchone() is not None:
                    yield file.relative_to(logs)


def copy_logs(database: Path, logs: Path, target: Path) -> CopiedLogs:
    """Copies to `target`/logs and writes `target`/manifest.jsonl: path, length and SHA-256 of each file."""
    files = copied_bytes = 0
    with (target / MANIFEST_FILE).open("x") as manifest:
        for stream in known_streams(database, logs):
            # Bytes first: a gap that is declared meanwhile lies behind them, and then it is not counted.
            for part in (stream, stream.with_name(stream.name + ".gaps")):
                if not (logs / part).exists():
                    continue
                digest, length = _copy(logs / part, target / LOGS_FOLDER / part, root=target)
                line = {"path": f"{LOGS_FOLDER}/{part}", "bytes": length, "sha256": digest}
                manifest.write(json.dumps(line) + "\n")
                files, copied_bytes = files + 1, copied_bytes + length
        manifest.flush()
        os.fsync(manifest.fileno())
    return CopiedLogs(files=files, bytes=copied_bytes)


def check_manifest(backup: Path) -> None:
    """Reads every file that a backup's manifest names. Raises Conflict for one that is missing or changed."""
    with (backup / MANIFEST_FILE).open() as manifest:
        for line in manifest:
            told = json.loads(line)
            file = backup / told["path"]
            if not file.is_file():
                raise Conflict(f"{backup}: {told['path']} is missing")
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            if digest != told["sha256"]:
                raise Conflict(f"{backup}: {told['path']} is not what was backed up")


def _copy(source: Path, target: Path, *, root: Path) -> tuple[str, int]:
    make_private_directories(target.parent, above=root)
    digest = hashlib.sha256()
    with source.open("rb") as original, open(target, "xb", opener=_private) as copy:
        while chunk := original.read(_CHUNK_BYTES):
            digest.update(chunk)
            copy.write(chunk)
        length = copy.tell()
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest(), length


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def restore_logs(database: Path, logs: Path, data: Path) -> CopiedLogs:
    """Copies into the data directory what of `logs` belongs to attempts of the database."""
    files = copied_bytes = 0
    for stream in known_streams(database, logs):
        for part in (stream, stream.with_name(stream.name + ".gaps")):
            if (logs / part).exists():
                _, length = _copy(logs / part, data / LOGS_FOLDER / part, root=data)
                files, copied_bytes = files + 1, copied_bytes + length
    return CopiedLogs(files=files, bytes=copied_bytes)
