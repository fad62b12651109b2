"""The one checker of recorded histories: the tables of a store, joined with the ledger of the commands.

The tables alone are judged by `invariants`; here is what needs both.
"""

import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.invariants import Rows
from tests.support.ledger import Entry
from windlass_coordinator.core.fences import fence_floor

_ATTEMPTS = """
    SELECT jobs.job_id, tasks.name, a.idx, a.attempt, a.fence, a.state, a.failure, a.exit_code
    FROM attempts a JOIN tasks ON tasks.task_key = a.task_key JOIN jobs ON jobs.job_key = tasks.job_key
"""
_EDGES = """
    SELECT jobs.job_id, parent.name, child.name
    FROM edges JOIN tasks parent ON parent.task_key = edges.parent_key
    JOIN tasks child ON child.task_key = edges.child_key JOIN jobs ON jobs.job_key = child.job_key
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    state: str
    failure: str | None
    exit_code: int | None


@contextmanager
def rows_in_use(database: Path) -> Iterator[Rows]:
    """The tables of a SQLite database at one moment, while its coordinator runs."""
    inside = sqlite3.connect(":memory:")
    with closing(inside):
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source:
            source.backup(inside)
        yield lambda query, *values: inside.execute(query, values).fetchall()


@contextmanager
def rows_at_rest(database: Path) -> Iterator[Rows]:
    """The tables of a SQLite database that nobody has open; its files stay as they are."""
    with tempfile.TemporaryDirectory() as beside:
        copy = Path(beside) / "copy.db"
        for suffix in ("", "-wal"):
            source = database.with_name(database.name + suffix)
            if source.exists():
                shutil.copyfile(source, f"{copy}{suffix}")
        with closing(sqlite3.connect(copy)) as connection:
            yield lambda query, *values: connection.execute(query, values).fetchall()


def check_history(entries: Sequence[Entry], rows: Rows) -> None:
    """Raises AssertionError that names the invariant and the place."""
    recorded = _attempts(rows)
    ((incarnation,),) = rows("SELECT value FROM meta WHERE key = 'incarnation'")
    _check_starts(entries, recorded, incarnation=int(incarnation))
    _check_results(entries, recorded)
    _check_order(entries, rows)


def _attempts(rows: Rows) -> dict[tuple[Any, ...], _Row]:
    return {
        (job_id, task, index, attempt, fence): _Row(state=state, failure=failure, exit_code=code)
        for job_id, task, index, attempt, fence, state, failure, code in rows(_ATTEMPTS)
    }


def _check_starts(
    entries: Sequence[Entry], recorded: dict[tuple[Any, ...], _Row], *, incarnation: int
) -> None:
    """What an earlier incarnation assigned after a backup is unknown once that backup is restored."""
    starts = Counter(entry.try_ for entry in entries if entry.what == "start")
    twice = {try_: count for try_, count in starts.items() if count > 1}
    assert not twice, f"I15: started more than once: {twice}"
    jobs = {try_[0] for try_ in recorded}
    unknown = [
        try_
        for try_ in starts
        if try_[0] in jobs and try_ not in recorded and try_[4] > fence_floor(incarnation)
    ]
    assert not unknown, f"I15: started without being assigned: {unknown}"


def _check_results(entries: Sequence[Entry], recorded: dict[tuple[Any, ...], _Row]) -> None:
    ends = {entry.try_: entry.code for entry in entries if entry.what.startswith("end:")}
    of_ledger = {entry.instance for entry in entries}
    for try_, row in recorded.items():
        if try_[:3] in of_ledger and row.state == "SUCCEEDED":
            assert ends.get(try_) == 0, f"I7: {try_} succeeded, its command says {ends.get(try_)}"
        if try_ in ends and row.failure == "USER_EXIT":
            assert row.exit_code == ends[try_], f"I7: {try_} {row}, its command says {ends[try_]}"


def _check_order(entries: Sequence[Entry], rows: Rows) -> None:
    """A child starts after the ends of its parents (I11)."""
    children: dict[tuple[str, str], set[str]] = defaultdict(set)
    for job_id, parent, child in rows(_EDGES):
        children[job_id, parent].add(child)
    succeeded_at: dict[tuple[str, str], int] = {}
    first_start: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(entries):
        if entry.what == "start":
            first_start.setdefault((entry.job_id, entry.task), number)
        elif entry.what == "end:0":
            first_end = succeeded_at.get((entry.job_id, entry.task), number)
            succeeded_at[entry.job_id, entry.task] = min(first_end, number)
    for (job_id, parent), those in children.items():
        for child in those & {task for job, task in first_start if job == job_id}:
            parent_end = succeeded_at.get((job_id, parent))
            started = first_start[job_id, child]
            in_order = parent_end is not None and parent_end < started
            assert in_order, f"I11: {child} of {job_id} started before {parent} ended"
