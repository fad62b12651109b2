"""Following a job: its tasks' progress and its instances' output while it runs.

Task output goes to the standard streams, each line with its origin; progress goes to standard error: a live
table on a terminal, else one line per change of a task. Ctrl-C ends the following, not the job.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from windlass.cli import render
from windlass.cli.terminal import sanitise
from windlass.client import Client
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import AttemptState, LogStream
from windlass_proto.model.status import JobStatus, LogChunk

INSTANCES_MAX = 32
"""Whose output is shown while following; of more nobody can read along."""
_OUTPUT_AFTER_END = timedelta(seconds=30)
"""How long output may still come when the job has ended."""
_BAR_WIDTH = 20
_LINE_BYTES_MAX = 64 * 1024


class FollowDisplay(Protocol):
    """Where progress and output are shown."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def on_status(self, job: JobStatus) -> None: ...
    def on_line(self, origin: str, line: bytes, stream: LogStream) -> None: ...
    def on_note(self, text: str) -> None: ...


def make_display() -> FollowDisplay:
    return LiveDisplay() if sys.stderr.isatty() else PlainDisplay()


async def follow_job(client: Client, job_id: JobId) -> JobStatus:
    """Shows everything until the job has ended; the final status."""
    with make_display() as display:
        await _Following(client, job_id, display).run()
    return await client.wait(job_id)


class PlainDisplay:
    """For files and pipes: lines only, raw bytes."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def on_status(self, job: JobStatus) -> None:
        for task in job.tasks:
            if self._last.get(task.name) != task.state:
                self._last[task.name] = task.state
                reason = f": {task.reason}" if task.reason else ""
                click.echo(f"{task.name} {task.state} {render.done_text(task)}{reason}", err=True)
        if job.state.is_terminal:
            reason = f": {job.reason}" if job.reason else ""
            click.echo(f"job {job.state}{reason}", err=True)

    def on_line(self, origin: str, line: bytes, stream: LogStream) -> None:
        if sys.stdout.isatty():
            line = sanitise(line.decode(errors="replace")).encode()
        click.echo(f"{origin} | ".encode() + line, nl=False, err=stream is LogStream.STDERR)

    def on_note(self, text: str) -> None:
        click.echo(text, err=True)


class LiveDisplay:
    """For a terminal: output scrolls, the table stays below it."""

    def __init__(self) -> None:
        self._console = render.console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def on_status(self, job: JobStatus) -> None:
        self._live.update(_picture(job), refresh=True)

    def on_line(self, origin: str, line: bytes, stream: LogStream) -> None:
        if stream is LogStream.STDOUT and not sys.stdout.isatty():
            click.echo(f"{origin} | ".encode() + line, nl=False)
            return
        text = sanitise(line.decode(errors="replace")).rstrip("\n")
        style = "" if stream is LogStream.STDOUT else "yellow"
        self._console.print(Text.assemble((f"{origin} | ", "dim"), (text, style)))

    def on_note(self, text: str) -> None:
        self._console.print(Text(sanitise(text), style="dim"))


class LineSplitter:
    """Cuts chunks into lines; an unfinished one is held back, unless it gets too long."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self._show = show
        self._held = b""

    def feed(self, chunk: LogChunk) -> None:
        if chunk.gap_bytes:
            self.finish()
            self._show(f"({chunk.gap_bytes} bytes are missing: {chunk.gap_reason})\n".encode())
        *lines, self._held = (self._held + chunk.data).split(b"\n")
        for line in lines:
            self._show(line + b"\n")
        if len(self._held) > _LINE_BYTES_MAX:
            self.finish()

    def finish(self) -> None:
        """Shows what was held back."""
        if self._held:
            self._show(self._held + b"\n")
        self._held = b""


class _Following:
    def __init__(self, client: Client, job_id: JobId, display: FollowDisplay) -> None:
        self._client = client
        self._job_id = job_id
        self._display = display
        self._known: set[tuple[str, int, int]] = set()
        self._is_full = False

    async def run(self) -> None:
        try:
            async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
                async with aclosing(self._client.watch(self._job_id)) as statuses:
                    async for status in statuses:
                        self._display.on_status(status)
                        await self._look_for_output(group)
                after_end = asyncio.get_running_loop().time() + _OUTPUT_AFTER_END.total_seconds()
                deadline.reschedule(after_end)
        except TimeoutError:
            self._display.on_note("(the job has ended, some of its output has not arrived yet)")

    async def _look_for_output(self, group: asyncio.TaskGroup) -> None:
        """Begins to follow attempts that were not seen before."""
        instances = self._client.instances(self._job_id, all_attempts=True, page_size=INSTANCES_MAX)
        if self._is_full:
            return
        async with aclosing(instances):
            async for instance in instances:
                for attempt in instance.attempts:
                    key = (instance.task, instance.index, attempt.attempt)
                    if attempt.state is not AttemptState.RELEASED and key not in self._known:
                        self._begin(key, group)
                if self._is_full:
                    return

    def _begin(self, key: tuple[str, int, int], group: asyncio.TaskGroup) -> None:
        if len(self._known) >= INSTANCES_MAX:
            if not self._is_full:
                job = render.short_id(self._job_id)
                self._display.on_note(
                    f"(for the output of further instances: windlass logs {job} TASK/INDEX)"
                )
            self._is_full = True
            return
        self._known.add(key)
        for stream in LogStream:
            group.create_task(self._show(key, stream))

    async def _show(self, key: tuple[str, int, int], stream: LogStream) -> None:
        task, index, attempt = key
        origin = f"{task}/{index}"
        lines = LineSplitter(lambda line: self._display.on_line(origin, line, stream))
        try:
            chunks = self._client.follow_log(self._job_id, task, index, stream=stream, attempt=attempt)
            async with aclosing(chunks):
                async for chunk in chunks:
                    lines.feed(chunk)
        except WindlassError as error:
            self._display.on_note(f"(the output of {origin} is not shown: {error})")
        lines.finish()


def _picture(job: JobStatus) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for task in job.tasks:
        succeeded = task.counts.succeeded
        filled = _BAR_WIDTH * succeeded // max(task.instances, 1)
        bar = Text("\u2501" * filled, style="green") + Text("\u2501" * (_BAR_WIDTH - filled), style="dim")
        since = render.took(task.started_at, task.ended_at)
        table.add_row(Text(task.name), render.state_text(task.state), bar, render.done_text(task), since)
    title = Text.assemble(
        (render.short_id(job.job_id), "bold"), " ", job.name, " ", render.state_text(job.state)
    )
    if job.reason:
        title.append(f"  {sanitise(job.reason)}")
    return Group(title, table)
