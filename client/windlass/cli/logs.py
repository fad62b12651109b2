"""`windlass logs`: what the instances of a job wrote.

To a terminal the output goes without the sequences that could steer it; anywhere else byte for byte.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

import click

from windlass.cli.invocation import Invocation, find_job, pass_invocation
from windlass.cli.terminal import Sanitiser
from windlass.client import Client
from windlass_proto.errors import InvalidRequest, NotFound
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import LogState, LogStream
from windlass_proto.model.status import LogChunk

_ON_ITS_WAY = timedelta(seconds=15)
"""How long output of an attempt that has ended is waited for: agents ship within a second."""


@click.command("logs")
@click.argument("job")
@click.argument("instance", default="", metavar="[TASK[/INDEX]]")
@click.option("-f", "--follow", is_flag=True, help="Go on until everything has been written.")
@click.option("--stderr", "stderr", is_flag=True, help="What was written to standard error.")
@click.option("--attempt", default=0, help="Of this attempt instead of the newest.")
@pass_invocation
def show_logs(
    invocation: Invocation, *, job: str, instance: str, follow: bool, stderr: bool, attempt: int
) -> None:
    """Print what a job's instances wrote; all of them, those of a task, or one.

    \b
    Examples:
      windlass logs last
      windlass logs last count
      windlass logs 3f9a count/2 --stderr
      windlass logs last count/0 -f
    """
    task, index = _parse_instance(instance)
    stream = LogStream.STDERR if stderr else LogStream.STDOUT

    async def show(client: Client) -> None:
        job_id = await find_job(client, job)
        chosen = await _choose(client, job_id, task=task, index=index)
        for name, number in chosen:
            if len(chosen) > 1:
                click.echo(f"==> {name}/{number} <==", err=not sys.stdout.isatty())
            log = _InstanceLog(client, job_id, task=name, index=number, stream=stream, attempt=attempt)
            await (log.follow() if follow else log.show())

    invocation.run(show)


def _parse_instance(text: str) -> tuple[str, int | None]:
    task, slash, number = text.partition("/")
    if slash and not number.isdecimal():
        raise InvalidRequest(f"{text!r} must be TASK or TASK/INDEX, such as count/2")
    return task, int(number) if slash else None


async def _choose(client: Client, job_id: JobId, *, task: str, index: int | None) -> list[tuple[str, int]]:
    if index is not None:
        return [(task, index)]
    status = await client.get(job_id)
    if task and task not in [one.name for one in status.tasks]:
        known = ", ".join(one.name for one in status.tasks)
        raise NotFound(f"{job_id} has no task {task!r}; it has {known}")
    chosen: list[tuple[str, int]] = [(one.task, one.index) async for one in client.instances(job_id, task)]
    order: dict[str, int] = {one.name: place for place, one in enumerate(status.tasks)}
    if not chosen:
        raise NotFound(f"nothing of {job_id} has been started yet: try again, or `windlass job {job_id}`")
    return sorted(chosen, key=lambda one: (order[one[0]], one[1]))


class _InstanceLog:
    """One stream of one instance on its way to standard output."""

    def __init__(
        self, client: Client, job_id: JobId, *, task: str, index: int, stream: LogStream, attempt: int
    ) -> None:
        self._client = client
        self._job_id = job_id
        self._task = task
        self._index = index
        self._stream = stream
        self._attempt = attempt
        self._sanitiser = Sanitiser() if sys.stdout.isatty() else None

    async def follow(self) -> None:
        """Everything, until no more will come."""
        await self._copy_following(0)
        self._finish()

    async def show(self) -> None:
        """What is there; of an attempt that has ended also what is still on its way."""
        chunks = self._client.read_log(
            self._job_id, self._task, self._index, stream=self._stream, attempt=self._attempt
        )
        last = await self._copy(chunks)
        if last is not None and last.state is LogState.STREAMING and await self._has_ended():
            try:
                async with asyncio.timeout(_ON_ITS_WAY.total_seconds()):
                    await self._copy_following(last.offset)
            except TimeoutError:
                click.echo("(the rest has not arrived yet)", err=True)
        self._finish()

    async def _has_ended(self) -> bool:
        instances = self._client.instances(self._job_id, self._task, index=self._index, all_attempts=True)
        async for instance in instances:
            attempts = [one for one in instance.attempts if one.attempt == (self._attempt or one.attempt)]
            return bool(attempts) and attempts[-1].state.is_terminal
        return False

    async def _copy_following(self, offset: int) -> None:
        await self._copy(
            self._client.follow_log(
                self._job_id,
                self._task,
                self._index,
                stream=self._stream,
                attempt=self._attempt,
                offset=offset,
            )
        )

    async def _copy(self, chunks: AsyncGenerator[LogChunk, None]) -> LogChunk | None:
        last: LogChunk | None = None
        async with aclosing(chunks):
            async for chunk in chunks:
                last = chunk
                if chunk.gap_bytes:
                    click.echo(f"({chunk.gap_bytes} bytes are missing here: {chunk.gap_reason})", err=True)
                if chunk.data:
                    self._write(chunk.data)
        return last

    def _write(self, data: bytes) -> None:
        click.echo(data if self._sanitiser is None else self._sanitiser.feed(data), nl=False)

    def _finish(self) -> None:
        if self._sanitiser is not None:
            click.echo(self._sanitiser.finish(), nl=False)
