"""Processes of this machine, named so that a reused pid is never taken for the old one (Linux /proc)."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

_PROC = Path("/proc")
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process: its pid and when it was started, in clock ticks since boot, on which boot."""

    pid: int
    started_ticks: int
    boot_id: str

    def is_alive(self) -> bool:
        """A process that has ended but was not waited for yet counts as ended."""
        return identity_of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signals it, unless it has ended. False when it has."""
        try:
            handle = os.pidfd_open(self.pid)
        except (ProcessLookupError, OSError):
            return False
        try:
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def identity_of(pid: int) -> ProcessIdentity | None:
    """None when there is no such process, or only what is left of it."""
    found = _state_and_start(pid)
    if found is None or found[0] in "ZX":
        return None
    return ProcessIdentity(pid=pid, started_ticks=found[2], boot_id=_boot_id())


def matching(fits: Callable[[list[str]], bool]) -> list[ProcessIdentity]:
    """Processes whose arguments fit."""
    found: list[ProcessIdentity] = []
    for pid in _all_pids():
        try:
            raw = (_PROC / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue
        arguments = [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]]
        identity = identity_of(pid) if arguments and fits(arguments) else None
        if identity is not None and pid != os.getpid():
            found.append(identity)
    return found


def with_descendants(roots: Iterable[ProcessIdentity]) -> list[ProcessIdentity]:
    """The processes and all below them, parents first."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        found = _state_and_start(pid)
        if found is not None:
            children.setdefault(found[1], []).append(pid)
    result = list(roots)
    for identity in result:
        below = (identity_of(pid) for pid in children.get(identity.pid, ()))
        result.extend(child for child in below if child is not None and child not in result)
    return result


def wait_until_ended(identities: Iterable[ProcessIdentity], *, timeout: timedelta) -> list[ProcessIdentity]:
    """Those that are still alive after `timeout`."""
    give_up_at = time.monotonic() + timeout.total_seconds()
    left = [one for one in identities if one.is_alive()]
    while left and time.monotonic() < give_up_at:
        time.sleep(_LOOK_EVERY_S)
        left = [one for one in left if one.is_alive()]
    return left


def end(identities: Iterable[ProcessIdentity], *, grace: timedelta) -> None:
    """Asks them to end; kills those that have not ended after `grace`."""
    asked = list(identities)
    for one in asked:
        one.send(signal.SIGTERM)
    for one in wait_until_ended(asked, timeout=grace):
        one.send(signal.SIGKILL)
    wait_until_ended(asked, timeout=grace)


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _state_and_start(pid: int) -> tuple[str, int, int] | None:
    """State letter, parent's pid, start time."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in front may contain anything
    return fields[0], int(fields[1]), int(fields[19])


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
