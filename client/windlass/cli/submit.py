"""`windlass submit`: a command line, a job file, or a job file with some of it said otherwise."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from windlass.cli import render
from windlass.cli.follow import follow_job
from windlass.cli.invocation import Invocation, pass_invocation
from windlass.cli.options import CONTAINER, DURATION, ENV, MAPPING, SIZE
from windlass.cli.transfer_bar import transfer_bar
from windlass.cli.troubles import exit_code_of, find_troubles, print_troubles
from windlass.client import Client
from windlass.documents import JobDocument
from windlass.jobfile import PlannedJob, plan_job, read_job_file, with_overrides
from windlass.package import upload_packages
from windlass.profile import Profile
from windlass.store import RemoteFiles
from windlass_proto.errors import InvalidJob
from windlass_proto.model.ids import JobId
from windlass_proto.model.specs import JobSpec

_TASK = "task"
_ARGV = "windlass.argv"
_OPTION_OF_FIELD = {
    "command": "the command",
    "shell": "the command",
    "instances": "-n",
    "package": "-p",
    "env": "-e",
    "inputs": "-r",
    "outputs": "-w",
    "timeout": "--timeout",
    "retries": "--retries",
    "max_retries": "--retries",
    "cluster": "--cluster",
    "stdout": "--stdout",
    "stderr": "--stderr",
    "resources.cpu": "--cpu",
    "resources.memory": "--memory",
    "resources.slots": "--slots",
    "resources.gpus": "--gpus",
    "container": "--docker",
}


class _SubmitCommand(click.Command):
    """Tells `submit -- python x.py` (program and arguments) from `submit "python x.py"` (a shell line)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_ARGV] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command("submit", cls=_SubmitCommand)
@click.argument("line", default="", metavar="[COMMAND | -- PROGRAM ARGS...]")
@click.option("-f", "--file", "file", metavar="FILE", help="Job file: .yaml, .json or .cfg; - reads YAML.")
@click.option("-n", "--instances", type=int, help="Copies of the task; each knows its WINDLASS_INDEX.")
@click.option("-p", "--package", metavar="PATH", help="File, comma list or folder to pack, or an object URL.")
@click.option("-e", "--env", "env", type=ENV, multiple=True, help="Environment: NAME:VALUE[,NAME:VALUE].")
@click.option(
    "-r", "--read-mount", "inputs", type=MAPPING, multiple=True, help="Input: oss://bucket/dir/:/dir."
)
@click.option(
    "-w", "--write-mount", "outputs", type=MAPPING, multiple=True, help="Output: /dir:oss://bucket/dir/."
)
@click.option("--timeout", type=DURATION, help="Of one attempt, such as 90s, 30m, 1h30m.")
@click.option("--retries", type=int, help="Further attempts when the command fails.")
@click.option("--name", help="The job's name.")
@click.option("--description", help="For people.")
@click.option("--priority", type=int, help="Higher runs first.")
@click.option("--force", is_flag=True, help="Go on with the other instances when one fails.")
@click.option("--cpu", type=float, help="Cores that an instance needs.")
@click.option("--memory", type=SIZE, help="Memory that an instance needs, such as 512MiB.")
@click.option("--slots", type=int, help="Slots of a node that an instance takes.")
@click.option("--gpus", type=int, help="GPUs of a node that an instance has for itself.")
@click.option(
    "--docker",
    type=CONTAINER,
    metavar="IMAGE[@URL]",
    help="Run in a container; URL: a registry in object storage.",
)
@click.option("--cluster", help="The cluster whose nodes run it.")
@click.option("--stdout", metavar="URL", help="Object URL of a directory that gets standard output.")
@click.option("--stderr", metavar="URL", help="Object URL of a directory that gets standard error.")
@click.option("--follow", is_flag=True, help="Show progress and output; exit as `windlass wait` does.")
@render.json_option
@click.pass_context
@pass_invocation
def submit(
    invocation: Invocation,
    ctx: click.Context,
    /,
    *,
    line: str,
    file: str | None,
    follow: bool,
    as_json: bool,
    **given: Any,  # Any: click's values, one per option
) -> None:
    """Submit a job and print its id.

    A COMMAND in quotes is a line for the shell; after -- stand a program and its arguments. With -f the job
    comes from a file, and what is said here counts for each of its tasks (environments and mappings are
    merged, everything else is replaced).

    \b
    Examples:
      windlass submit "echo hello from \\$WINDLASS_INDEX" -n 3 --follow
      windlass submit -p ./dir -n 3 --timeout 1h -- python3 count.py --fast
      windlass submit "python3 count.py" -p ./dir -r oss://windlass/in/:/tmp/in -w /tmp/out:oss://windlass/out/
      windlass submit -f job.yaml --follow
      windlass submit -f job.cfg -e LEVEL:debug
    """
    command = _command(line, ctx.meta.get(_ARGV))
    if not command and file is None:
        raise click.UsageError(
            'there is nothing to run: give a command in quotes, or "-- PROGRAM ARGS", or -f FILE'
        )
    task = {**command, **_task_fields(given)}
    document = _from_file(file, given, task) if file else _from_command(given, task)
    planned = plan_job(document)
    for note in planned.notes:
        click.echo(f"note: {document.origin}: {note}", err=True)
    profile = invocation.profile()
    spec = _with_uploads(planned, profile)
    try:
        code = invocation.run(lambda client: _submit(client, spec, follow=follow, as_json=as_json))
    except InvalidJob as error:  # what only the coordinator can know, such as its clusters
        raise document.in_own_words(error.problems) from error
    sys.exit(code)


async def _submit(client: Client, spec: JobSpec, *, follow: bool, as_json: bool) -> int:
    job_id = await client.submit(spec)
    if as_json:
        render.print_json({"job_id": job_id, "name": spec.name})
    elif not follow:
        click.echo(job_id)
    if not follow:
        _hint(job_id)
        return 0
    click.echo(f"submitted {job_id} ({spec.name})", err=True)
    status = await follow_job(client, job_id)
    troubles = await find_troubles(client, status)
    print_troubles(status, troubles, err=True)
    return exit_code_of(status, troubles)


def _hint(job_id: JobId) -> None:
    if sys.stdout.isatty():
        short = render.short_id(job_id)
        click.echo(f"see: windlass job {short}   windlass logs {short}   windlass wait {short}", err=True)


def _command(line: str, argv: list[str] | None) -> dict[str, Any]:
    if argv is None:
        return {"shell": line} if line else {}
    if line:
        raise click.UsageError("give a command in quotes or after --, not both")
    if not argv:
        raise click.UsageError("there is no program after --")
    return {"command": argv}


def _task_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that describe a task, in the native form; those not given are left out."""
    fields = {
        name: given[name]
        for name in ("instances", "timeout", "retries", "cluster", "stdout", "stderr")
        if given[name] is not None
    }
    resources = {name: given[name] for name in ("cpu", "memory", "slots", "gpus") if given[name] is not None}
    if resources:
        fields["resources"] = resources
    if given["docker"] is not None:
        fields["container"] = given["docker"]
    if given["package"] is not None:
        fields["package"] = _absolute(given["package"])
    if given["env"]:
        fields["env"] = {name: value for part in given["env"] for name, value in part.items()}
    for name, pairs in (
        ("inputs", [pair for part in given["inputs"] for pair in part]),
        ("outputs", [(directory, url) for part in given["outputs"] for url, directory in part]),
    ):
        if pairs:
            targets: dict[str, list[str]] = {}
            for source, target in pairs:
                targets.setdefault(source, []).append(target)
            fields[name] = targets
    return fields


def _job_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: given[name] for name in ("name", "description", "priority") if given[name] is not None}
    if given["force"]:
        fields["fail_on_instance_failure"] = False
    return fields


def _absolute(package: str) -> str | list[str]:
    """Paths on the command line count from where the user is, not from where the job file lies."""
    if "://" in package:
        return package
    return [str(Path(part.strip()).expanduser().absolute()) for part in package.split(",") if part.strip()]


def _from_file(file: str, given: Mapping[str, Any], task: Mapping[str, Any]) -> JobDocument:
    if file == "-":
        document = read_job_file(Path("standard-input.yaml"), text=sys.stdin.read())
    else:
        document = read_job_file(Path(file))
    return with_overrides(document, _job_fields(given), task)


def _from_command(given: Mapping[str, Any], task: Mapping[str, Any]) -> JobDocument:
    job = {"name": _name_of(task), **_job_fields(given)}
    return JobDocument(
        content={**job, "tasks": {_TASK: dict(task)}},
        directory=Path.cwd(),
        origin="command line",
        own_path=_option_of,
    )


def _option_of(path: str) -> str:
    """`tasks.task.instances` -> `-n`."""
    field = path.removeprefix(f"tasks.{_TASK}.")
    if field == path:
        return f"--{path}" if path in ("name", "description", "priority") else path
    for known, option in _OPTION_OF_FIELD.items():
        if field == known or field.startswith((f"{known}.", f"{known}[")):
            return option + field[len(known) :]
    return field


def _name_of(task: Mapping[str, Any]) -> str:
    """After the program: `python3 count.py` -> `python3`."""
    words = task.get("command") or _words(str(task.get("shell", "")))
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(words[0]).name if words else "").strip("-")
    return plain[:40] or "job"


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _with_uploads(planned: PlannedJob, profile: Profile) -> JobSpec:
    if not planned.packages:
        return planned.spec
    store = RemoteFiles(profile.storage())
    urls = upload_packages(planned.packages, store=store, bucket=profile.bucket, showing=transfer_bar)
    return planned.with_packages(urls)
