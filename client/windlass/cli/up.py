"""`windlass up` and `windlass down`: a whole system on this machine."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from windlass import environment, processes
from windlass.cli import render
from windlass.laptop import Laptop, LaptopState, Ports, check_counts, choose_ports
from windlass.supervisor import END_WITHIN, READY_WITHIN, Supervisor, end_leftovers, run_until_signalled
from windlass_proto.errors import Unavailable, WindlassError

_DOWN_WITHIN = 4 * END_WITHIN
_LOOK_EVERY_S = 0.05
_data_option = click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Data directory [WINDLASS_DATA]."
)


@click.command("up")
@_data_option
@click.option("--agents", default=min(os.cpu_count() or 1, 3), show_default=True, help="Node agents to run.")
@click.option("--slots", default=2, show_default=True, help="Commands that an agent runs at a time.")
@click.option("--port", default=0, help="Of the coordinator; 0 = the last one used, or any that is free.")
@click.option("--detach", is_flag=True, help="Run in the background; returns when work can be submitted.")
@render.json_option
def up(*, data: Path | None, agents: int, slots: int, port: int, detach: bool, as_json: bool) -> None:
    """Start a coordinator, an object store and node agents on this machine.

    Everything is kept in the data directory, so the next start goes on where this one ended. Ctrl-C (or
    `windlass down`) ends all of it.

    \b
    Examples:
      windlass up
      windlass up --agents 4 --slots 1
      windlass up --detach --json
    """
    check_counts(agents=agents, slots=slots)
    laptop = Laptop(data or environment.data_directory())
    laptop.prepare()
    if detach:
        arguments = ["--agents", str(agents), "--slots", str(slots), "--port", str(port)]
        _detach(laptop, arguments)
        _describe(laptop, as_json=as_json, is_detached=True)
        return
    with laptop.lock():
        left = end_leftovers(laptop)
        if left:
            click.echo(f"ended {left} processes that an earlier start had left behind", err=True)
        ports = choose_ports(Ports(grpc=port), before=laptop.read_state().ports)
        supervisor = Supervisor(laptop, ports=ports, agents=agents, slots=slots, say=_say)
        on_ready = lambda: _describe(laptop, as_json=as_json, is_detached=False)  # noqa: E731
        asyncio.run(run_until_signalled(supervisor, on_ready))
    click.echo("everything has ended; the data is kept", err=True)


@click.command("down")
@_data_option
def down(*, data: Path | None) -> None:
    """End what `windlass up` has started; the data is kept.

    \b
    Examples:
      windlass down
    """
    laptop = Laptop(data or environment.data_directory())
    supervisor = laptop.read_state().supervisor
    if supervisor is not None and supervisor.send(signal.SIGTERM):
        if processes.wait_until_ended([supervisor], timeout=_DOWN_WITHIN):
            raise Unavailable(
                f"pid {supervisor.pid} has not ended within {_DOWN_WITHIN.total_seconds():.0f} s: try again"
            )
        click.echo("everything has ended; the data is kept")
        return
    left = end_leftovers(laptop) if laptop.directory.exists() else 0
    if left:
        click.echo(f"the supervisor was gone; ended {left} processes that it had left behind")
    else:
        click.echo(f"nothing is running in {laptop.directory}")


def _say(text: str) -> None:
    click.echo(f"windlass: {text}", err=True)


def _detach(laptop: Laptop, arguments: list[str]) -> None:
    """Starts the same command in a session of its own and waits until it is ready."""
    laptop.lock().close()  # says so if one is running already
    log = laptop.logs / "up.log"
    command = [sys.executable, "-m", "windlass.cli.main", "up", "--data", str(laptop.directory), *arguments]
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    give_up_at = time.monotonic() + READY_WITHIN.total_seconds() + END_WITHIN.total_seconds()
    while not _is_ready(laptop.read_state(), child.pid):
        if child.poll() is not None:
            raise WindlassError(f"it did not start: {_last_line(log)} (log: {log})")
        if time.monotonic() > give_up_at:
            raise Unavailable(f"it is not ready yet; see {log}, or end it with `windlass down`")
        time.sleep(_LOOK_EVERY_S)


def _is_ready(state: LaptopState, pid: int) -> bool:
    return state.is_ready and state.supervisor is not None and state.supervisor.pid == pid


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it ended without a word"


def _describe(laptop: Laptop, *, as_json: bool, is_detached: bool) -> None:
    state = laptop.read_state()
    profile = laptop.profile()
    if as_json:
        render.print_json(_facts(laptop, state))
        return
    nodes = f"{state.agents} with {state.slots} slots each"
    explicit = "" if laptop.directory == environment.data_directory() else f"--profile {laptop.profile_file} "
    click.echo(f"Windlass is up.  coordinator {profile.coordinator}   agents {nodes}")
    click.echo(f"  data    {laptop.directory}   (logs in {laptop.logs})")
    click.echo(f"  bucket  oss://{profile.bucket}/   as files: {laptop.store / profile.bucket}")
    click.echo(f"  try     windlass {explicit}submit 'echo hello from $WINDLASS_INDEX' -n 3 --follow")
    click.echo(f"  end     {'windlass down' if is_detached else 'Ctrl-C, or windlass down'}")


def _facts(laptop: Laptop, state: LaptopState) -> dict[str, Any]:
    return {
        "data": str(laptop.directory),
        "pid": state.supervisor.pid if state.supervisor else None,
        "coordinator": f"127.0.0.1:{state.ports.grpc}",
        "http": f"http://127.0.0.1:{state.ports.http}",
        "store": f"http://127.0.0.1:{state.ports.store}",
        "profile": str(laptop.profile_file),
        "storage": str(laptop.storage_file),
        "token_file": str(laptop.coordinator / "admin.token"),
        "agents": state.agents,
        "slots": state.slots,
        "logs": str(laptop.logs),
        "children": {name: child.pid for name, child in state.children.items()},
    }
