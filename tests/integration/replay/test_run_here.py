"""The program that runs a replay, alone in its folder as in a bundle."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from windlass.replay import run_here


def a_folder(folder: Path, *argv: str, **more: Any) -> Path:
    plan = {
        "argv": argv,
        "env": {"PATH": "/usr/bin:/bin"},
        "folders": {"WINDLASS_WORK_DIR": "work"},
        "own": ["HOME"],
        "inputs": [],
        "outputs": [],
        "timeout_s": None,
        "memory_bytes": 0,
        "pids": 0,
        "open_files": 0,
        "cpu": 0.0,
        "image": "",
        "has_container": False,
        "network": "host",
    }
    (folder / "work").mkdir()
    (folder / "tmp").mkdir()
    (folder / "replay.json").write_text(json.dumps(plan | more))
    shutil.copy(run_here.__file__, folder / "run.py")
    return folder


def run(folder: Path, *arguments: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-I", str(folder / "run.py"), *arguments],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd="/",
    )


def test_it_ends_with_the_commands_exit_code(tmp_path: Path) -> None:
    assert run(a_folder(tmp_path, "/bin/sh", "-c", "exit 42")).returncode == 42


def test_a_signal_counts_128_more(tmp_path: Path) -> None:
    assert run(a_folder(tmp_path, "/bin/sh", "-c", "kill -9 $$")).returncode == 128 + 9


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = run(a_folder(tmp_path, "/no/such/program"))
    assert (done.returncode, "there is no program /no/such/program" in done.stderr) == (127, True)


def test_what_runs_out_of_its_time_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    line = "sleep 1000 & echo $! > pid; wait"
    done = run(a_folder(tmp_path, "/bin/sh", "-c", line, timeout_s=0.5))
    assert done.returncode == 124
    assert "its time is over" in done.stderr
    assert not Path("/proc", (tmp_path / "work/pid").read_text().strip(), "cwd").exists()


def test_the_environment_is_the_attempts_alone_with_folders_where_they_are_now(tmp_path: Path) -> None:
    done = run(a_folder(tmp_path, "/usr/bin/env"))
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found == {
        "PATH": "/usr/bin:/bin",
        "WINDLASS_WORK_DIR": str(tmp_path / "work"),
        "HOME": pwd.getpwuid(os.getuid()).pw_dir,
    }


def test_a_shell_takes_the_commands_place(tmp_path: Path) -> None:
    done = run(a_folder(tmp_path, "false"), "--shell", said="pwd; exit 5\n")
    assert (done.returncode, done.stdout.strip()) == (5, str(tmp_path / "work"))


def test_open_files_are_limited(tmp_path: Path) -> None:
    done = run(a_folder(tmp_path, "/bin/sh", "-c", "ulimit -n", open_files=77))
    assert done.stdout == "77\n"


def test_absolute_paths_appear_to_the_command_and_to_nobody_else(tmp_path: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    place = {"url": "oss://b/in/", "folder": "mounts/0", "target": "/windlass-test-data/in"}
    folder = a_folder(tmp_path, "/bin/cat", "/windlass-test-data/in/word", inputs=[place])
    (folder / "mounts/0").mkdir(parents=True)
    (folder / "mounts/0/word").write_text("word")
    assert run(folder).stdout == "word"
    assert not Path("/windlass-test-data").exists()


def test_memory_is_limited_or_it_says_that_it_is_not(tmp_path: Path) -> None:
    line = "import sys; x = bytearray(300 << 20); print(len(x))"
    done = run(a_folder(tmp_path, sys.executable, "-c", line, memory_bytes=64 << 20))
    is_told = "memory is not limited" in done.stderr
    assert (done.returncode == 0) is is_told
    left = [
        *Path("/sys/fs/cgroup").glob("windlass-replay-*"),
        *Path("/sys/fs/cgroup").glob("*/windlass-replay-*"),
    ]
    assert left == []
