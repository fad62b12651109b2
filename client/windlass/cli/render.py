"""How things are shown: tables for people, JSON for programs, the same data in both."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from windlass.cli.terminal import sanitise
from windlass.quantities import format_duration
from windlass_proto.model.states import JobState, NodeState, TaskState
from windlass_proto.model.status import JobStatus, TaskStatus

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")

_WIDE = 10_000
_SHORT_ID = len("job-") + 10
_STYLES = {
    "SUCCEEDED": "green",
    "READY": "cyan",
    "RUNNING": "cyan",
    "FAILED": "red",
    "SILENT": "red",
    "GONE": "red",
    "STOPPED": "yellow",
    "STOPPING": "yellow",
    "SKIPPED": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    """Colours on a terminal only (and not with NO_COLOR); no line is cut when the output goes elsewhere."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _WIDE, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    *leading, last = columns
    for column in leading:
        table.add_column(column.upper(), no_wrap=True)
    table.add_column(last.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(sanitise(cell)) for cell in row))
    _print_lines(table)


def plain(value: Any) -> Any:  # Any: whatever JSON can hold
    """Our values as JSON has them: times in ISO 8601, durations in seconds."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case str() | int() | float() | None:
            return value
        case Iterable():
            return [plain(item) for item in value]
        case _:
            return str(value)


def _print_lines(table: Table) -> None:
    """To anything but a terminal without the blanks that fill the last column."""
    target = console()
    if target.is_terminal:
        target.print(table)
        return
    with target.capture() as captured:
        target.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def state_text(state: JobState | TaskState | NodeState | Enum) -> Text:
    return Text(str(state.value), style=_STYLES.get(str(state.value), ""))


def short_id(job_id: str) -> str:
    """Long enough to be unique for a long time; every command takes it."""
    return job_id[:_SHORT_ID]


def local_time(time: datetime | None) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "-"


def took(started_at: datetime | None, ended_at: datetime | None) -> str:
    """By the coordinator's clock; "-" while it is not known."""
    if started_at is None or ended_at is None:
        return "-"
    return format_duration(ended_at - started_at)


def done_text(task: TaskStatus) -> str:
    """`2/3`, and what is not simply waiting."""
    counts = task.counts
    extra = {
        "running": counts.active,
        "waiting to retry": counts.retry_wait,
        "failed": counts.failed,
        "stopped": counts.stopped,
    }
    rest = ", ".join(f"{number} {word}" for word, number in extra.items() if number)
    return f"{counts.succeeded}/{task.instances}" + (f" ({rest})" if rest else "")


def task_rows(job: JobStatus) -> list[tuple[str | Text, ...]]:
    return [
        (
            task.name,
            state_text(task.state),
            done_text(task),
            ", ".join(task.after) or "-",
            took(task.started_at, task.ended_at),
            task.reason,
        )
        for task in job.tasks
    ]


TASK_COLUMNS = ("task", "state", "done", "after", "took", "reason")
