"""What `make demo` shows is true: right counts, outputs and logs where it says, nothing left running."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def run_demo(data: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO, "--data", data, *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )


def processes_with(text: str) -> list[str]:
    """Command lines of all processes of the machine that name `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and path.parent.name != str(os.getpid()):
            found.append(line)
    return found


@pytest.mark.alone
def test_the_demo_counts_right_says_where_things_lie_and_leaves_nothing_running(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    shown = run_demo(data)
    assert shown.returncode == 0, shown.stdout
    assert 'merged counts  {"INFO": 2460, "WARN": 2448, "DEBUG": 2509, "ERROR": 2583}' in shown.stdout
    assert "equal to a single-process count" in shown.stdout
    bucket = data / "store" / "windlass"
    for place in ("log-count", "logs/log-count", "word-count", "logs/word-count"):
        assert f"oss://windlass/{place}/   as files: {bucket / place}" in shown.stdout
        assert any((bucket / place).iterdir())
    logs = [path.name.partition(".")[0] for path in (bucket / "logs/log-count").iterdir()]
    assert logs.count("stdout") == 5
    assert processes_with(str(data)) == []

    log = tmp_path / "own.log"
    log.write_text("INFO one\nWARN two\nINFO three\n", encoding="utf-8")
    again = run_demo(data, log)
    assert again.returncode == 0, again.stdout
    assert json.dumps({"INFO": 2, "WARN": 1, "DEBUG": 0, "ERROR": 0}) in again.stdout
    assert processes_with(str(data)) == []
