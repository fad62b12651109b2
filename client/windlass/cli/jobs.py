"""`windlass jobs`, `job`, `stop`, `restart`, `delete`, `priority`, `wait`."""

import asyncio
import sys
from datetime import timedelta
from typing import Any

import click
from rich.text import Text

from windlass.cli import render
from windlass.cli.invocation import Invocation, find_job, pass_invocation
from windlass.cli.options import DURATION
from windlass.cli.troubles import exit_code_of, find_troubles, print_troubles
from windlass.client import Client
from windlass.quantities import format_duration, format_exactly
from windlass_proto.errors import Conflict
from windlass_proto.model.states import JobState
from windlass_proto.model.status import InstanceStatus, JobStatus

EXIT_NOT_ENDED = 124
"""As timeout(1) says that a time is up."""
_INSTANCES_SHOWN = 1000
_DIGEST_SHOWN = 12
"""Characters of an image's; --json has all of it."""

_job_argument = click.argument("job")


@click.command("jobs")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([s.value for s in JobState], case_sensitive=False),
    help="Only jobs in this state; several by repeating it.",
)
@click.option("--name", default="", help="Only jobs whose name contains this text.")
@click.option("-n", "--limit", default=50, show_default=True, help="How many at most; 0 = all.")
@render.json_option
@pass_invocation
def list_jobs(
    invocation: Invocation, *, states: tuple[str, ...], name: str, limit: int, as_json: bool
) -> None:
    """List jobs, newest first.

    \b
    Examples:
      windlass jobs
      windlass jobs --state RUNNING --state WAITING
      windlass jobs --name count --json
    """
    wanted = [JobState(state.upper()) for state in states]

    async def fetch(client: Client) -> list[JobStatus]:
        found: list[JobStatus] = []
        async for job in client.list(states=wanted, name_contains=name):
            found.append(job)
            if limit and len(found) > limit:
                break
        return found

    jobs = invocation.run(fetch)
    if limit and len(jobs) > limit:
        jobs = jobs[:limit]
        click.echo(f"(the newest {limit} are shown; -n 0 shows all)", err=True)
    if as_json:
        render.print_json(jobs)
        return
    columns = ("id", "name", "state", "priority", "submitted", "took", "reason")
    rows = [
        (
            render.short_id(job.job_id),
            job.name,
            render.state_text(job.state),
            str(job.priority),
            render.local_time(job.submitted_at),
            render.took(job.started_at, job.ended_at),
            job.reason,
        )
        for job in jobs
    ]
    render.print_table(columns, rows)


@click.command("job")
@_job_argument
@click.argument("task", default="")
@render.json_option
@pass_invocation
def show_job(invocation: Invocation, *, job: str, task: str, as_json: bool) -> None:
    """Show a job and its tasks; with TASK, that task's instances.

    JOB is an id, the beginning of one, or `last` for the newest job.

    \b
    Examples:
      windlass job last
      windlass job 3f9a count
      windlass job last --json
    """

    async def fetch(client: Client) -> tuple[JobStatus, list[InstanceStatus]]:
        job_id = await find_job(client, job)
        status = await client.get(job_id)
        instances: list[InstanceStatus] = []
        if not task and not as_json:
            return status, list(await find_troubles(client, status))
        async for instance in client.instances(job_id, task, all_attempts=bool(task)):
            if len(instances) >= _INSTANCES_SHOWN:
                click.echo(f"(the first {_INSTANCES_SHOWN} instances are shown)", err=True)
                break
            instances.append(instance)
        return status, instances

    status, instances = invocation.run(fetch)
    if as_json:
        document: dict[str, Any] = render.plain(status)
        render.print_json({**document, "claimed_instances": instances})
        return
    if task:
        _print_instances(instances)
        return
    _print_job(status)
    print_troubles(status, instances)


def _print_job(job: JobStatus) -> None:
    facts = [
        ("job", job.job_id),
        ("name", job.name),
        *([("description", job.description)] if job.description else []),
        ("state", job.state.value + (f": {job.reason}" if job.reason else "")),
        ("priority", str(job.priority)),
        ("submitted", render.local_time(job.submitted_at)),
        ("took", render.took(job.started_at, job.ended_at)),
        *([("generation", str(job.generation))] if job.generation > 1 else []),
    ]
    for name, value in facts:
        click.echo(f"{name + ':':<13}{value}")
    click.echo()
    render.print_table(render.TASK_COLUMNS, render.task_rows(job))


def _print_instances(instances: list[InstanceStatus]) -> None:
    columns = ["instance", "attempt", "state", "node", "exit", "ran for", "started", "reason"]
    attempts = [(instance, attempt) for instance in instances for attempt in instance.attempts]
    rows: list[list[str | Text]] = [
        [
            f"{instance.task}/{instance.index}",
            str(attempt.attempt),
            render.state_text(attempt.state),
            attempt.node_name or attempt.node_id,
            _exit_text(attempt.exit_code, attempt.exit_signal),
            format_duration(attempt.ran_for) if attempt.ran_for is not None else "-",
            render.local_time(attempt.started_at),
            attempt.reason,
        ]
        for instance, attempt in attempts
    ]
    if any(attempt.image_digest for _, attempt in attempts):
        columns.insert(-1, "image")
        for row, (_, attempt) in zip(rows, attempts, strict=True):
            row.insert(-1, attempt.image_digest.partition(":")[2][:_DIGEST_SHOWN] or "-")
    render.print_table(columns, rows)


def _exit_text(code: int | None, signal: int | None) -> str:
    if signal is not None:
        return f"signal {signal}"
    return "-" if code is None else str(code)


@click.command("stop")
@click.argument("jobs", nargs=-1, required=True)
@pass_invocation
def stop_jobs(invocation: Invocation, *, jobs: tuple[str, ...]) -> None:
    """Stop jobs: nothing new starts, what runs is ended.

    \b
    Examples:
      windlass stop last
      windlass stop 3f9a 77b0
    """

    async def stop(client: Client) -> None:
        for name in jobs:
            status = await client.stop(await find_job(client, name))
            click.echo(f"{status.job_id} {status.state}")

    invocation.run(stop)


@click.command("restart")
@_job_argument
@click.option("--all", "all_instances", is_flag=True, help="Also run again what has succeeded.")
@pass_invocation
def restart_job(invocation: Invocation, *, job: str, all_instances: bool) -> None:
    """Run a finished job again: what has not succeeded, or everything.

    \b
    Examples:
      windlass restart last
      windlass restart 3f9a --all
    """

    async def restart(client: Client) -> JobStatus:
        job_id = await find_job(client, job)
        try:
            return await client.restart(job_id, all_instances=all_instances)
        except Conflict as error:
            if all_instances or (await client.get(job_id)).state is not JobState.SUCCEEDED:
                raise
            raise Conflict(f"{job_id} has succeeded: add --all to run all of it again") from error

    status = invocation.run(restart)
    click.echo(f"{status.job_id} {status.state}")


@click.command("delete")
@click.argument("jobs", nargs=-1, required=True)
@click.option("--stop", "stop_first", is_flag=True, help="Stop a job that has not ended first.")
@pass_invocation
def delete_jobs(invocation: Invocation, *, jobs: tuple[str, ...], stop_first: bool) -> None:
    """Delete jobs that have ended, with their logs.

    \b
    Examples:
      windlass delete 3f9a
      windlass delete last --stop
    """

    async def delete(client: Client) -> None:
        for name in jobs:
            job_id = await find_job(client, name)
            deleted = await client.delete(job_id, stop_first=stop_first)
            click.echo(f"{job_id} {'deleted' if deleted else 'is being stopped and goes when that is done'}")

    invocation.run(delete)


@click.command("priority", context_settings={"ignore_unknown_options": True})
@_job_argument
@click.argument("priority", type=int)
@pass_invocation
def set_priority(invocation: Invocation, *, job: str, priority: int) -> None:
    """Change a job's priority; higher runs first. It counts for what has not been handed out yet.

    \b
    Examples:
      windlass priority last 10
      windlass priority 3f9a -5
    """

    async def change(client: Client) -> JobStatus:
        return await client.set_priority(await find_job(client, job), priority)

    status = invocation.run(change)
    click.echo(f"{status.job_id} priority {status.priority}")


@click.command("wait")
@_job_argument
@click.option("--timeout", type=DURATION, help="Give up after this time, such as 90s or 2h; the job goes on.")
@render.json_option
@pass_invocation
def wait_for_job(invocation: Invocation, *, job: str, timeout: timedelta | None, as_json: bool) -> None:
    """Wait until a job has ended.

    The exit code is the job's: 0 when it succeeded, else the exit code of its first failed instance when that
    is 1..255, else 1. It is 124 when the job has not ended within --timeout.

    \b
    Examples:
      windlass wait last
      windlass wait 3f9a --timeout 2h && echo done
    """

    async def wait(client: Client) -> tuple[JobStatus, tuple[InstanceStatus, ...]] | None:
        job_id = await find_job(client, job)
        try:
            async with asyncio.timeout(timeout.total_seconds() if timeout else None):
                status = await client.wait(job_id)
        except TimeoutError:
            return None
        return status, await find_troubles(client, status)

    ended = invocation.run(wait)
    if ended is None:
        within = f" within {format_exactly(timeout)}" if timeout else ""
        click.echo(f"error: {job} has not ended{within}; it goes on", err=True)
        sys.exit(EXIT_NOT_ENDED)
    status, troubles = ended
    if as_json:
        render.print_json(status)
    else:
        click.echo(f"{status.job_id} {status.state}" + (f": {status.reason}" if status.reason else ""))
    print_troubles(status, troubles, err=True)
    sys.exit(exit_code_of(status, troubles))
