"""`windlass replay`: a past attempt again, here."""

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import click

from windlass.cli.invocation import Invocation, find_job, pass_invocation
from windlass.cli.transfer_bar import transfer_bar
from windlass.client import Client
from windlass.quantities import format_size
from windlass.replay.bundle import fetch_recorded, write_bundle
from windlass.replay.folder import prepare_folder
from windlass.replay.inputs import check_inputs, mounted_inputs
from windlass.replay.inputs import copy_inputs as bring_copies
from windlass.replay.past import PastAttempt, find_past_attempt
from windlass.replay.plan import RemotePlace, ReplayPlan, plan_replay
from windlass.store import RemoteFiles
from windlass_proto.errors import InvalidRequest


@click.command("replay")
@click.argument("attempt_of", metavar="JOB[/TASK[/INDEX]]")
@click.option("--attempt", default=0, help="This attempt instead of the newest.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to build it up; empty or new.",
)
@click.option("--no-inputs", is_flag=True, help="Leave the input directories empty.")
@click.option("--copy-inputs", is_flag=True, help="Copy the inputs instead of mounting them.")
@click.option("--shell", is_flag=True, help="A shell in its place instead of the command.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--export",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a bundle (tar.gz) that runs elsewhere, instead of running it.",
)
@pass_invocation
def replay(
    invocation: Invocation,
    *,
    attempt_of: str,
    attempt: int,
    directory: Path | None,
    no_inputs: bool,
    copy_inputs: bool,
    shell: bool,
    dry_run: bool,
    export: Path | None,
) -> None:
    """Build up a past attempt in a local folder and run it there, to find out why it failed.

    Command, environment, package, inputs and limits are those of the attempt; a container is run by this
    machine's docker or podman. Outputs stay in the folder. Ends with the command's exit code.

    \b
    Examples:
      windlass replay last
      windlass replay 3f9a/count/2 --attempt 1 --shell
      windlass replay last/count/2 --dry-run
      windlass replay last/count/2 --export failure.tar.gz
    """
    job, task, index = _parse(attempt_of)

    async def find(client: Client) -> PastAttempt:
        job_id = await find_job(client, job)
        return await find_past_attempt(client, job_id, task=task, index=index, attempt=attempt)

    past = invocation.run(find)
    plan = plan_replay(past)
    _describe(plan, past)
    if not no_inputs:
        check_inputs(plan.inputs)
    if dry_run:
        return
    bringer = _Bringer(invocation, past, plan, inputs=() if no_inputs else plan.inputs)
    if export is not None:
        bringer.export(export)
        return
    folder = (directory or Path(_folder_name(past))).absolute()
    sys.exit(bringer.run(folder, is_copied=copy_inputs or plan.has_container, arguments=["--shell"] * shell))


def _parse(text: str) -> tuple[str, str, int]:
    job, _, rest = text.partition("/")
    task, slash, number = rest.partition("/")
    if not job or (slash and not number.isdecimal()):
        raise InvalidRequest(f"{text!r} must be JOB, JOB/TASK or JOB/TASK/INDEX, such as last/count/2")
    return job, task, int(number) if slash else 0


def _folder_name(past: PastAttempt) -> str:
    short = past.job_id.removeprefix("job-")[:8]
    return f"replay-{short}-{past.spec.name}-{past.index}-{past.status.attempt}"


def _describe(plan: ReplayPlan, past: PastAttempt) -> None:
    spec = past.spec
    _say(f"{plan.what}, on {past.status.node_name}: {plan.outcome}")
    if past.status.reason:
        _say(f"because: {past.status.reason}")
    _say(f"command: {shlex.join(plan.argv)}")
    if spec.container is not None:
        _say(f"container: {spec.container.image or spec.container.archive}")
    if spec.package:
        _say(f"package: {spec.package}")
    for place in plan.inputs:
        _say(f"input: {place.url} as {place.target or place.folder}")
    for place in plan.outputs:
        _say(f"output: {place.target or place.folder}; it stays there")
    limits = {
        "time": f"{plan.timeout_s:g} s" if plan.timeout_s is not None else "",
        "memory": format_size(plan.memory_bytes) if plan.memory_bytes else "",
        "processes": str(plan.pids or ""),
        "open files": str(plan.open_files or ""),
    }
    told = ", ".join(f"{name} {value}" for name, value in limits.items() if value)
    if told:
        _say(f"limits: {told}")
    for note in plan.notes:
        _say(f"note: {note}")


class _Bringer:
    """Brings what the attempt had, and has it run."""

    def __init__(
        self, invocation: Invocation, past: PastAttempt, plan: ReplayPlan, *, inputs: tuple[RemotePlace, ...]
    ) -> None:
        self._invocation, self._past, self._plan, self._inputs = invocation, past, plan, inputs
        self._profiles = invocation.profile().storage()
        self._store = RemoteFiles(self._profiles)

    def run(self, folder: Path, *, is_copied: bool, arguments: Sequence[str]) -> int:
        """The command's exit code."""
        self._prepare(folder)
        bring = partial(self._copied, folder) if is_copied else partial(self._mounted, folder)
        with bring():
            _say(f"running it in {folder}")
            return _ended(subprocess.Popen([sys.executable, "-I", str(folder / "run.py"), *arguments]))

    def export(self, file: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="windlass-replay-") as name:
            folder = Path(name) / "replay"
            self._prepare(folder)
            with self._copied(folder):
                self._invocation.run(lambda client: fetch_recorded(client, self._past, folder))
                write_bundle(folder, self._plan, file)
        _say(f"wrote {file} ({format_size(file.stat().st_size)}): unpack it and run `sh run.sh` in it")

    def _prepare(self, folder: Path) -> None:
        prepare_folder(folder, self._plan, self._past.spec, store=self._store, say=_say, showing=transfer_bar)

    @contextmanager
    def _copied(self, folder: Path) -> Iterator[None]:
        bring_copies(folder, self._inputs, store=self._store, say=_say, showing=transfer_bar)
        yield

    def _mounted(self, folder: Path) -> AbstractContextManager[None]:
        return mounted_inputs(
            folder, self._inputs, self._profiles, store=self._store, say=_say, showing=transfer_bar
        )


def _ended(program: "subprocess.Popen[bytes]") -> int:
    """A Ctrl-C reaches it too; it ends the command, and then itself."""
    while True:
        try:
            return program.wait()
        except KeyboardInterrupt:
            continue


def _say(text: str) -> None:
    click.echo(f"replay: {text}", err=True)
