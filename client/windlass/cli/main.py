"""The command `windlass`: its commands, and the one place where an error becomes a line and an exit code.

Exit codes: 0 = done, 1 = it failed (one line says why and what to do), 2 = the command line is wrong;
`wait` and `submit --follow` exit as the job did.
"""

import sys
from pathlib import Path
from typing import Any

import click

from windlass.cli import doctor, jobs, logs, nodes, replay, secrets, store, submit, up
from windlass.cli.invocation import Invocation
from windlass_proto import __version__
from windlass_proto.errors import InvalidJob, WindlassError

_INTERRUPTED = 130


class _ErrorsAsLines(click.Group):
    """Our errors are for people: no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InvalidJob as error:
            problems = error.problems
            click.echo(f"error: the job has {_count(len(problems))}; nothing was submitted", err=True)
            for problem in problems:
                click.echo(f"  {problem}", err=True)
        except WindlassError as error:
            click.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            click.echo("interrupted; what was submitted goes on (see `windlass jobs`)", err=True)
            sys.exit(_INTERRUPTED)
        sys.exit(1)


def _count(number: int) -> str:
    return "1 problem" if number == 1 else f"{number} problems"


@click.group(cls=_ErrorsAsLines, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="windlass")
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Which coordinator and store to use [WINDLASS_PROFILE; else what `windlass up` wrote].",
)
@click.pass_context
def root(ctx: click.Context, profile: Path | None) -> None:
    """Run batch jobs on machines of your own.

    \b
    Start here:
      windlass up                                    a whole system on this machine
      windlass submit "echo hello" -n 3 --follow     run a command three times
      windlass jobs                                  what was submitted
      windlass logs last                             what the newest job wrote
    """
    ctx.obj = Invocation(profile_file=profile)


for _command in (
    up.up,
    up.down,
    submit.submit,
    jobs.list_jobs,
    jobs.show_job,
    logs.show_logs,
    replay.replay,
    jobs.wait_for_job,
    jobs.stop_jobs,
    jobs.restart_job,
    jobs.delete_jobs,
    jobs.set_priority,
    nodes.list_nodes,
    nodes.node_group,
    nodes.list_clusters,
    nodes.cluster_group,
    nodes.make_join_token,
    secrets.secret_group,
    store.store,
    doctor.doctor,
):
    root.add_command(_command)


def main() -> None:
    """Entry point."""
    root()


if __name__ == "__main__":
    main()
