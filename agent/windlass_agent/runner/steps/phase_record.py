"""How much of its time a phase has used, so that an agent that was restarted goes on with the same clock.

Beside the attempt's other records, and only of phases that last: short ones are many. A phase whose agent
ended has used the time until the next one looked, what came between included; what other phases then take
once more is not counted for it. Seconds of the boot clock mean nothing after a reboot: what was interrupted
by that goes on with what it had used when its last agent began with it.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any  # of JSON

from windlass_agent.spool.durable import NO_RECORD, write_whole

_NAME = "phases.json"


class PhaseRecord:
    def __init__(self, root: Path, *, boot_id: str, now_s: float) -> None:
        """Of the attempt with this directory, as an agent finds it at `now_s` on the boot clock."""
        self._path, self._boot_id = root / _NAME, boot_id
        self._used_s: dict[str, float] = {}
        with suppress(OSError, *NO_RECORD):
            self._used_s = _used(json.loads(self._path.read_text()), boot_id, now_s)

    def used_s(self, phase: str) -> float:
        """0 for one that has not begun, or has come to its end."""
        return self._used_s.get(phase, 0.0)

    def lasts(self, phase: str, *, since_s: float) -> None:
        """It goes on since that time of the boot clock; whoever finds this knows how long."""
        found = {name: {"used_s": used_s} for name, used_s in self._used_s.items()}
        this = {"used_s": self.used_s(phase), "since_s": since_s}
        self._write({"boot_id": self._boot_id, "phases": {**found, phase: this}})

    def ended(self, phase: str) -> None:
        """Should it be done once more, it has all of its time again."""
        self._used_s.pop(phase, None)
        found = {name: {"used_s": used_s} for name, used_s in self._used_s.items()}
        self._write({"boot_id": self._boot_id, "phases": found})

    def _write(self, record: dict[str, Any]) -> None:
        # On a full disk it is not: an agent that starts in between gives the phase all of its time once more.
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(record).encode())


def _used(record: Any, boot_id: str, now_s: float) -> dict[str, float]:
    """Raises one of NO_RECORD for what is damaged."""
    used: dict[str, float] = {}
    for phase, found in record["phases"].items():
        since_s = float(found.get("since_s", now_s)) if record["boot_id"] == boot_id else now_s
        used[phase] = max(0.0, float(found["used_s"])) + max(0.0, now_s - since_s)
    return used
