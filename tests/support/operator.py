"""The commands of an operator, as processes of their own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.support.coordinator_process import environment

DEADLINE_S = 120.0
WITHOUT_OVERRIDES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""The modes of files mean nothing to root, unless it gives that up."""
CRASH = {"WINDLASS_TEST_BUILD": "1"}


def coordinator_verb(
    *arguments: object, dies_at: str = "", obeys_modes: bool = False
) -> "subprocess.CompletedProcess[str]":
    """`windlass-coordinator VERB ...`, run to its end, or killed at a failpoint."""
    words = [str(word) for word in arguments]
    prefix = WITHOUT_OVERRIDES if obeys_modes and os.geteuid() == 0 else []
    return subprocess.run(
        [*prefix, sys.executable, "-m", "windlass_coordinator.app", *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environment() | (CRASH | {"WINDLASS_FAILPOINT": dies_at} if dies_at else {}),
        check=False,
    )


def done(completed: "subprocess.CompletedProcess[str]") -> str:
    """What it printed, when it went well."""
    assert completed.returncode == 0, completed.stderr + completed.stdout
    return completed.stdout


def contents(folder: Path) -> dict[str, str]:
    """Every file below, by digest, but for shared memory of SQLite: what must be the same afterwards."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }
