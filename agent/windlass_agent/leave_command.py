"""`windlass-agent leave`: tells the agent of this machine to finish what it has, and to leave for good."""

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from windlass_agent.node.boot_clock import boot_seconds
from windlass_agent.node.facts import boot_id
from windlass_agent.notice_command import duration_argument
from windlass_agent.runner.notice import Notice, write_notice
from windlass_agent.state_dir import StateDir

NAME = "leave"
_END_S = 60.0
"""After `--within`: for commands to end and for their output to be sent."""
_LOOK_EVERY_S = 0.1


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when no agent runs on the directory, or it cannot be told, or it did not end in time."""
    options = _parser().parse_args(arguments)
    within: timedelta = options.within
    state = StateDir(options.state)
    if not _is_held(state.lock):
        return _complain(
            f"no agent runs on {state.root}: start it with the same --state, then ask it to leave"
        )
    patient_until_s = boot_seconds() + within.total_seconds()
    notice = Notice(
        boot_id=boot_id(),
        patient_until_s=patient_until_s,
        ends_at_s=patient_until_s + _END_S,
        reason="it was asked to leave",
    )
    try:
        write_notice(state.notice, notice)
    except OSError as problem:
        return _complain(f"{state.notice}: {problem.strerror}")
    while _is_held(state.lock):
        if boot_seconds() > notice.ends_at_s + _END_S:
            return _complain("it has not left in time; see its log")
        time.sleep(_LOOK_EVERY_S)
    return 0


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _complain(words: str) -> int:
    print(f"windlass-agent: {words}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"windlass-agent {NAME}",
        description="Tells the running agent to take no more work, waits until what it has is done, and lets"
        " it leave for good. What is not done in time is ended and runs again elsewhere.",
    )
    parser.add_argument(
        "--state", metavar="DIR", type=Path, required=True, help="the agent's state directory"
    )
    parser.add_argument(
        "--within",
        metavar="DURATION",
        type=duration_argument,
        default=timedelta(hours=1),
        help="how long to wait for what runs: 30s, 10m, 2h (default 1h)",
    )
    return parser
