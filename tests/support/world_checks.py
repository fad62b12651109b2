"""What must hold when a world of processes ends: nothing has grown, nothing is left, nothing is told."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support import leftovers
from tests.support.coordinator_process import wait_until
from tests.support.world_processes import AgentProgram, Program, Usage

_MORE_DESCRIPTORS = 24
"""What a process may have open more than when it was new: connections, files of its libraries."""
_PER_AGENT = 4
"""Connections of an agent."""
_PER_SLOT = 3
"""What an agent holds of a keeper."""
_MORE_MEMORY = 1.5
_SECRETS_LIE_IN = ("admin.token", "join.token", "node.json", "node.json.new", "storage.toml")


def check_growth(
    living: Sequence[Program], *, new: Mapping[int, Usage], measured: Mapping[int, Usage], agents: int
) -> None:
    """`new` and `measured`, by process id: when it had just started, and when somebody measured it."""
    for program in living:
        now = program.usage()
        before = new.get(program.pid)
        if before is not None:
            allowed = before.descriptors + _MORE_DESCRIPTORS + _PER_AGENT * agents
            if isinstance(program, AgentProgram):
                allowed += _PER_SLOT * len(program.slots())
            assert now.descriptors <= allowed, (
                f"{program.name} has {now.descriptors} descriptors open, had {before.descriptors}"
            )
        earlier = measured.get(program.pid)
        if earlier is not None:
            assert now.memory_bytes <= _MORE_MEMORY * earlier.memory_bytes, (
                f"{program.name} has grown from {earlier.memory_bytes} to {now.memory_bytes} bytes"
            )


async def until_no_process_is_left(directory: Path, *, mark: str) -> None:
    def gone() -> bool:
        return not leftovers.processes(directory, mark=mark)

    with suppress(AssertionError):  # told better below
        await asyncio.to_thread(wait_until, gone, within_s=15.0, what="no process is left")
    left = leftovers.processes(directory, mark=mark)
    assert not left, f"processes left: {[_shown(process) for process in left]}"


def check_left(directory: Path, state_ids: Collection[str]) -> None:
    """Of processes that have ended."""
    assert leftovers.groups(state_ids) == []
    assert leftovers.mounts(directory) == []
    assert leftovers.descriptors(directory) == []
    assert leftovers.drafts(directory) == []
    assert list((directory / "tmp").iterdir()) == []


def check_logs(directory: Path, *, allowed: Sequence[str]) -> None:
    for log in [*directory.glob("*.log"), *directory.rglob("keeper.log")]:
        for part in log.read_text(errors="replace").split("Traceback (most recent call last)")[1:]:
            if not any(text in part for text in allowed):
                raise AssertionError(f"a traceback in {log}:\n{part[:3000]}")


def secrets_of(directory: Path, agents: Sequence[AgentProgram]) -> list[bytes]:
    """Every token that was given to a program here."""
    found = [path.read_bytes().strip() for path in directory.rglob("*.token")]
    with suppress(FileNotFoundError):
        found += [agent.identity["credential"].encode() for agent in agents]
    return [secret for secret in found if secret]  # a node that has left has none


def check_secrets(directory: Path, secrets: Sequence[bytes]) -> None:
    assert leftovers.holding(directory, secrets, allowed=_SECRETS_LIE_IN) == [], "secrets in files"


def check_command_lines(directory: Path, secrets: Sequence[bytes], *, mark: str) -> None:
    for process in leftovers.processes(directory, mark=mark):
        with suppress(psutil.Error):
            line = " ".join(process.cmdline()).encode()
            assert not any(secret in line for secret in secrets), f"a secret in {process}"


def _shown(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.pid} {process.status()} {' '.join(process.cmdline())[:200]}"
    return str(process.pid)
