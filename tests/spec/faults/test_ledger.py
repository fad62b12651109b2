"""The ledger: what commands write into it, and what is read out of it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.ledger import Ledger

VARIABLES = {
    "WINDLASS_JOB_ID": "job-1",
    "WINDLASS_TASK_NAME": "t",
    "WINDLASS_INDEX": "3",
    "WINDLASS_ATTEMPT": "2",
    "WINDLASS_FENCE": "17",
}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "a ledger")


def run(ledger: Ledger, body: str, *, ticks: bool = False, **more: str) -> int:
    line = ledger.recorded(body, ticks=ticks)
    return subprocess.run(["/bin/sh", "-c", line], env=os.environ | VARIABLES | more, check=False).returncode


def test_a_command_keeps_its_exit_code_and_is_written_down(ledger: Ledger) -> None:
    assert run(ledger, "exit 7") == 7
    start, end = ledger.entries()
    assert (start.what, start.try_) == ("start", ("job-1", "t", 3, 2, 17))
    assert (end.what, end.code, end.pid) == ("end:7", 7, start.pid)
    assert ledger.starts("job-1") == [start]
    assert ledger.ends("job-1") == [end]


def test_an_attempt_that_is_seen_after_the_next_has_started_overlaps_it(ledger: Ledger) -> None:
    run(ledger, "true")
    run(ledger, "true", WINDLASS_ATTEMPT="3", WINDLASS_FENCE="18")
    assert ledger.overlaps() == []
    lines = ledger.path.read_text().splitlines(keepends=True)
    ledger.path.write_text("".join([lines[0], lines[2], lines[1], lines[3]]))
    ((later, seen),) = ledger.overlaps()
    assert (later.attempt, seen.attempt) == (3, 2)


def test_a_command_that_ticks_is_seen_while_it_runs(ledger: Ledger) -> None:
    assert run(ledger, "sleep 0.3; exit 1", ticks=True) == 1
    whats = [entry.what for entry in ledger.entries()]
    assert (whats[0], whats[-1]) == ("start", "end:1")
    assert set(whats[1:-1]) == {"tick"}
