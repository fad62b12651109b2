"""Why a job failed: its failed instances with their reasons, and the exit code that follows from the first.

`windlass job` shows it on request; who waits for a job or follows it is told without asking.
"""

from collections.abc import Sequence
from contextlib import aclosing

import click

from windlass.cli import render
from windlass.cli.terminal import sanitise
from windlass.client import Client
from windlass_proto.model.states import InstanceState, JobState, TaskState
from windlass_proto.model.status import AttemptStatus, InstanceStatus, JobStatus

SHOWN_MAX = 10
"""Failed instances that are told one by one; `windlass job JOB TASK` lists them all."""


async def find_troubles(client: Client, job: JobStatus) -> tuple[InstanceStatus, ...]:
    """The first failed instances, in the order of the tasks."""
    found: list[InstanceStatus] = []
    for task in job.tasks:
        if task.state is not TaskState.FAILED and not task.counts.failed:
            continue
        enough = min(SHOWN_MAX, len(found) + (task.counts.failed or SHOWN_MAX))
        async with aclosing(client.instances(job.job_id, task.name)) as instances:
            async for instance in instances:
                if instance.state is InstanceState.FAILED and instance.attempts:
                    found.append(instance)
                if len(found) >= enough:  # what comes after it has not failed
                    break
        if len(found) >= SHOWN_MAX:
            break
    return tuple(found)


def exit_code_of(job: JobStatus, troubles: Sequence[InstanceStatus]) -> int:
    """0 when the job succeeded, else the exit code of its first failed instance, else 1."""
    if job.state is JobState.SUCCEEDED:
        return 0
    code = troubles[0].attempts[-1].exit_code if troubles else None
    return code if code is not None and 1 <= code <= 255 else 1


def print_troubles(job: JobStatus, troubles: Sequence[InstanceStatus], *, err: bool = False) -> None:
    """One paragraph each: which instance, what kind of failure, the reason, and where to look on."""
    for instance in troubles:
        attempt = instance.attempts[-1]
        where = f"{instance.task}/{instance.index}"
        node = attempt.node_name or attempt.node_id
        click.echo(f"\n{where} failed on {node}: {_failure_text(attempt)}", err=err)
        click.echo(f"  see: windlass logs {render.short_id(job.job_id)} {where} --stderr", err=err)
    further = sum(task.counts.failed for task in job.tasks) - len(troubles)
    if troubles and further > 0:
        click.echo(f"\n({further} more failed: windlass job {render.short_id(job.job_id)} TASK)", err=err)


def _failure_text(attempt: AttemptStatus) -> str:
    reason = sanitise(attempt.reason)
    code = "" if attempt.exit_code is None else f"exit code {attempt.exit_code}"
    if code and code not in reason:
        reason = f"{reason} ({code})" if reason else code
    return f"{attempt.failure or attempt.state} {reason}".rstrip()
