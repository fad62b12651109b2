"""Orders to the program that touches mounts (`mount_child`), each with a deadline."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

from windlass_agent.mounts import mount_child
from windlass_agent.mounts.base import BadMapping, StorageUnavailable, TransferCancelled
from windlass_agent.spool.left_child import kill_or_leave

_LOOK_EVERY_S = 0.1
_REFUSED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What must be there before a command may see it."""

    path: str
    device: str
    """`major:minor`; "" = any."""
    names: Sequence[str] = ()
    """Entries that were seen from elsewhere, so they must be seen here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Files that cannot be changed, with room for new ones beside them."""

    lower: str
    upper: str
    work: str
    names: str
    """The layer that has the lower files under other names; "" = they keep theirs."""
    root: str
    """The attempt's own directory."""
    target: str
    """From `root` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    source: str
    root: str
    target: str
    writable: bool


def expose(
    proofs: Sequence[Proof],
    overlays: Sequence[Overlay],
    binds: Sequence[BindMount],
    *,
    within_s: float,
    cancelled: Event,
) -> None:
    """Proves the mounts below, and mounts what the command is to see. Raises BadMapping,
    StorageUnavailable.
    """
    order = {
        "do": "expose",
        "proofs": [asdict(one) for one in proofs],
        "overlays": [asdict(one) for one in overlays],
        "binds": [asdict(one) for one in binds],
    }
    code, answer = _carry_out(order, within_s=within_s, cancelled=cancelled)
    said = str(answer.get("error", "it ended without an answer"))
    if code == _REFUSED:
        raise BadMapping(said)
    if code is None:
        raise StorageUnavailable(f"the mount does not answer within {within_s:g} s")
    if code:
        raise StorageUnavailable(f"the mount cannot be used: {said}")


def probe(points: Sequence[Path], *, within_s: float) -> str:
    """Why the file systems cannot be used; "" = their daemons answer."""
    order = {"do": "probe", "points": [str(point) for point in points]}
    code, answer = _carry_out(order, within_s=within_s, cancelled=Event())
    if code is None:
        return f"it does not answer within {within_s:g} s"
    return str(answer.get("error", "the probe ended without an answer")) if code else ""


def _carry_out(
    order: Mapping[str, object], *, within_s: float, cancelled: Event
) -> tuple[int | None, dict[str, object]]:
    """Exit code and answer; no code when it took too long. A child that cannot be killed is left behind."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(mount_child.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
    )
    until_s = time.monotonic() + within_s
    text: bytes | None = json.dumps(order).encode()
    while time.monotonic() < until_s and not cancelled.is_set():
        with suppress(subprocess.TimeoutExpired):
            out, _ = child.communicate(text, timeout=_LOOK_EVERY_S)
            return child.returncode, _answer(out)
        text = None
    kill_or_leave(child, within_s=_LOOK_EVERY_S)
    if cancelled.is_set():
        raise TransferCancelled("it was stopped")
    return None, {}


def _answer(out: bytes) -> dict[str, object]:
    try:
        answer = json.loads(out)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
