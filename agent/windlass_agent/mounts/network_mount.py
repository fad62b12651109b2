"""NFS servers (`nfs://`, `nas://`, `cfs://`) through the system's own `mount.nfs`.

The server and the path are arguments of their own, and every option is taken apart and put together again, so
nothing that a task says can become an option of ours. What protects the node stands last, where it wins.
"""

import os
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Event

from windlass_agent.mounts.base import BadMapping, StorageUnavailable, TransferCancelled
from windlass_agent.mounts.kernel import entry_at
from windlass_agent.spool.left_child import kill_or_leave
from windlass_proto.checks.mappings import MOUNT_OPTIONS
from windlass_proto.model.specs import InputMapping
from windlass_proto.model.storage import NetworkLocation

_OPTION = re.compile(r"([a-z][a-z0-9_]*)(?:=([A-Za-z0-9.:_]+))?")
_LOCKING = ("lock", "nolock", "local_lock")
_USERS_FAULT = ("access denied", "no such file", "not a directory", "permission denied")
_LOOK_S = 0.1
_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """What the node's owner allows."""

    hosts: tuple[str, ...] = ()
    """Servers that tasks may mount, as names or patterns such as `*.nas.example.com`."""
    options: str = ""
    """For all mounts, before those of the task."""
    within_s: float = 120.0
    """For one mount."""


class NetworkMounts:
    def __init__(self, policy: NetworkPolicy, *, program: str | None) -> None:
        """`program`: mount.nfs, by its full path; None = the node has none."""
        self._policy, self._program = policy, program

    def mount(
        self, location: NetworkLocation, mapping: InputMapping, point: Path, *, locks: bool, cancelled: Event
    ) -> str:
        """The device of the mount at `point`, which is made. Raises BadMapping, StorageUnavailable."""
        command = self.command(location, mapping, point, locks=locks)
        point.mkdir(parents=True)
        _run(command, location, within_s=self._policy.within_s, cancelled=cancelled)
        entry = entry_at(point)
        if entry is None:
            raise StorageUnavailable(f"input {location}: mount.nfs mounted nothing")
        return entry.device

    def command(
        self, location: NetworkLocation, mapping: InputMapping, point: Path, *, locks: bool
    ) -> list[str]:
        host = location.host.lower()
        hosts = [allowed.lower() for allowed in self._policy.hosts]
        if host not in hosts and not any(fnmatchcase(host, allowed) for allowed in hosts):
            shown = ", ".join(self._policy.hosts) or "none"
            raise BadMapping(
                f"input {location}: this node mounts nothing from {location.host}"
                f" (its setting network.hosts: {shown})"
            )
        if self._program is None:
            raise StorageUnavailable(f"input {location}: this node has no mount.nfs")
        options = mount_options(
            (self._policy.options, mapping.options), writable=mapping.writable, locks=locks
        )
        return [self._program, location.export, str(point), "-o", ",".join(options)]


def mount_options(given: Sequence[str], *, writable: bool, locks: bool) -> list[str]:
    """The node's, the task's, and ours; of two of one name the later counts. Raises BadMapping."""
    options: dict[str, str] = {}
    for text in given:
        for option in filter(None, text.split(",")):
            found = _OPTION.fullmatch(option)
            if found is None or found[1] not in MOUNT_OPTIONS:
                raise BadMapping(f"mount option {option!r} is none that a task can have")
            options.pop(found[1], None)
            options[found[1]] = option
    if locks:
        options = {name: option for name, option in options.items() if name != "nolock"}
    elif not any(name in options for name in _LOCKING):
        options["nolock"] = "nolock"
    return [*options.values(), "rw" if writable else "ro", "nosuid", "nodev"]


def _run(command: Sequence[str], location: NetworkLocation, *, within_s: float, cancelled: Event) -> None:
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_ENV,
            cwd="/",
            start_new_session=True,
        )
    except OSError as problem:
        raise StorageUnavailable(f"mount.nfs cannot be started: {problem.strerror}") from problem
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s and not cancelled.is_set():
        with suppress(subprocess.TimeoutExpired):
            _, said = child.communicate(timeout=_LOOK_S)
            _judge(child.returncode, os.fsdecode(said), location)
            return
    kill_or_leave(child, within_s=_LOOK_S)
    if cancelled.is_set():
        raise TransferCancelled("it was stopped")
    raise StorageUnavailable(f"input {location}: the server does not answer within {within_s:g} s")


def _judge(code: int, said: str, location: NetworkLocation) -> None:
    if code == 0:
        return
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), f"exit code {code}")
    if any(words in said.lower() for words in _USERS_FAULT):
        raise BadMapping(f"input {location}: {last}")
    raise StorageUnavailable(f"input {location}: {last}")
