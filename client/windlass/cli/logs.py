"""`windlass logs`: what the instances of a job wrote.

To a terminal the output goes without the sequences that could steer it; anywhere else byte for byte.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

import click

from windlass.cli.invocation import Invocation, find_job, pass_invocation
from windlass.cli.terminal import Sanitiser
from windlass.client import Client
from windlass_proto.errors import InvalidRequest, NotFound
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import LogStream
from windlass_proto.model.status import LogChunk


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
            read = client.follow_log if follow else client.read_log
            await _copy(read(job_id, name, number, stream=stream, attempt=attempt))

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


async def _copy(chunks: AsyncGenerator[LogChunk, None]) -> None:
    sanitiser = Sanitiser() if sys.stdout.isatty() else None
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.gap_bytes:
                click.echo(f"({chunk.gap_bytes} bytes are missing here: {chunk.gap_reason})", err=True)
            if chunk.data:
                click.echo(chunk.data if sanitiser is None else sanitiser.feed(chunk.data), nl=False)
    if sanitiser is not None:
        click.echo(sanitiser.finish(), nl=False)
