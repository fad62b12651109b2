"""What isolation this machine can give, found out by trying."""

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import windlass_agent.keeper
from windlass_agent.core.isolation import NodeIsolation, UserRange
from windlass_agent.keeper.seccomp import knows
from windlass_proto.errors import InvalidRequest
from windlass_proto.model.specs import Isolation

_PROBE_S = 60.0
_OWN_PROC = (5, 8)
"""The first Linux whose /proc can be mounted with options of its own."""


def find_bwrap() -> str:
    """By full path; "" = it is not installed."""
    return shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin") or ""


def choose_isolation(asked: str, state: Path, users: UserRange | None, *, slots: int) -> NodeIsolation:
    """`auto` is standard where the machine can. Raises InvalidRequest when it cannot what was asked for.

    `users` None = other agents have them all. Nothing is tried for `dev`: should a task ask for more, its
    start will tell.
    """
    if os.geteuid() == 0 and users is None:
        why = "other agents have all of work.uid_range; give this one a range of its own"
        lacks = dict.fromkeys((Isolation.STRICT, Isolation.STANDARD), why)
    elif asked == Isolation.DEV or users is None:
        why = first_lack(state)
        lacks = dict.fromkeys((Isolation.STRICT, Isolation.STANDARD), why) if why else {}
    else:
        lacks = what_is_lacking(state, users.first)
    best = Isolation.DEV if Isolation.STANDARD in lacks else Isolation.STANDARD
    profile = best if asked == "auto" else Isolation(asked)
    if profile in lacks:
        raise InvalidRequest(f"settings: work.isolation: {profile} cannot be had here: {lacks[profile]}")
    given = NodeIsolation(profile=profile, lacks=lacks, slots=slots)
    return replace(given, users=users) if users else given


def what_is_lacking(state: Path, uid: int) -> dict[Isolation, str]:
    """Why the machine cannot give what, found out by trying."""
    lacks = {}
    for profile in (Isolation.STRICT, Isolation.STANDARD):
        why = first_lack(state) or _probe(profile, uid)
        if not why:
            break  # Whatever can be strict can be standard.
        lacks[profile] = why
    return lacks


def first_lack(state: Path) -> str:
    """What can be told without trying; "" = nothing is missing."""
    if os.geteuid() != 0:
        return "the agent does not run as root"
    if not find_bwrap():
        return "bubblewrap (bwrap) is not installed"
    if not knows(os.uname().machine):
        return f"the refused system calls are not known for {os.uname().machine}"
    if _release() < _OWN_PROC:
        return "Linux is older than 5.8"
    return _closed_directory(state)


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _closed_directory(state: Path) -> str:
    """Other users must get through to their work directories; the state directory itself is covered."""
    for directory in state.absolute().parents:
        if directory.exists() and not directory.stat().st_mode & stat.S_IXOTH:
            return f"other users cannot pass {directory}, above the state directory"
    return ""


def _probe(profile: Isolation, uid: int) -> str:
    program = Path(windlass_agent.keeper.__file__).with_name("probe.py")
    command = [sys.executable, *("-I", "-S", "-X", "utf8", str(program)), profile, find_bwrap(), str(uid)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"the trial failed: {problem}"
    lines = done.stderr.strip().splitlines()
    return (lines[-1] if lines else f"the trial ended with {done.returncode}") if done.returncode else ""
