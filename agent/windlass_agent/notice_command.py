"""`windlass-agent notice`: tells the agent of this machine that the machine will be taken away.

For people, and for the hook with which a provider announces that it takes a machine back.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from windlass_agent.node.boot_clock import boot_seconds
from windlass_agent.node.facts import boot_id
from windlass_agent.runner.notice import Notice, write_notice
from windlass_agent.settings import parse_duration
from windlass_agent.state_dir import StateDir

NAME = "notice"


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when there is no agent's state in the directory, or it cannot be written."""
    options = _parser().parse_args(arguments)
    within: timedelta = options.within
    state = StateDir(options.state)
    if not state.identity.exists():
        print(f"windlass-agent: {state.root} is no state directory of an agent", file=sys.stderr)
        return 1
    notice = Notice(boot_id=boot_id(), ends_at_s=boot_seconds() + within.total_seconds())
    try:
        write_notice(state.notice, notice)
    except OSError as problem:
        print(f"windlass-agent: {state.notice}: {problem.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"windlass-agent {NAME}",
        description="Tells the running agent that this machine will be taken away: it takes no more work,"
        " ends its commands in time, sends their output and leaves. They run again elsewhere.",
    )
    parser.add_argument(
        "--state", metavar="DIR", type=Path, required=True, help="the agent's state directory"
    )
    parser.add_argument(
        "--in",
        dest="within",
        metavar="DURATION",
        type=duration_argument,
        required=True,
        help="how long the machine is still there: 30s, 2m",
    )
    return parser


def duration_argument(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from problem
