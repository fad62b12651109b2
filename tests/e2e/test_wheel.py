"""The wheel, installed where the source tree is not, does what the README promises."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.laptop_user import left_behind

ROOT = Path(__file__).parents[2]
LOG_COUNT = ROOT / "examples" / "log-count"
DEADLINE_S = 180
COUNTS = {"INFO": 2460, "WARN": 2448, "DEBUG": 2509, "ERROR": 2583}


def run(*command: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with an environment that holds the built wheel and its dependencies, and no source."""
    place = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT, cwd=place)
    (wheel,) = place.glob("windlass-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    purelib = place / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # The dependencies are those that are locked and installed here; path files in there are not followed,
    # so the editable install of the source tree stays out of sight.
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    installer = [sys.executable, "-m", "pip", "--python", str(place / "venv")]
    run(*installer, "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=place)
    return place


@pytest.fixture(scope="module")
def environment(place: Path) -> Iterator[dict[str, str]]:
    """A running laptop system, started by the installed program."""
    environment = {
        "PATH": f"{place / 'venv' / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin",
        "HOME": str(place),
        "WINDLASS_DATA": str(place / "data"),
    }
    windlass = place / "venv" / "bin" / "windlass"
    run(windlass, "up", "--detach", "--agents", "3", cwd=place, environment=environment)
    try:
        yield environment
    finally:
        run(windlass, "down", cwd=place, environment=environment)
        assert left_behind(place / "data") == []


def test_the_installed_programs_come_from_the_wheel(place: Path) -> None:
    code = "import windlass, windlass_agent, windlass_coordinator, windlass_proto as p; print(p.__file__)"
    found = run(place / "venv" / "bin" / "python", "-c", code, cwd=place).strip()
    assert Path(found).is_relative_to(place / "venv")
    for program in ("windlass", "windlass-agent", "batch-agent", "windlass-coordinator"):
        assert "--help" in run(place / "venv" / "bin" / program, "--help", cwd=place)


def test_the_wheel_runs_the_log_count_job_from_upload_to_merged_result(
    place: Path, environment: dict[str, str]
) -> None:
    windlass = place / "venv" / "bin" / "windlass"
    run(sys.executable, LOG_COUNT / "generate.py", place / "log.txt", cwd=place)
    target = "oss://windlass/log-count/log-count-data.txt"
    run(windlass, "store", "cp", "log.txt", target, cwd=place, environment=environment)
    run(windlass, "submit", "-f", LOG_COUNT / "job.yaml", "--follow", cwd=place, environment=environment)
    url = "oss://windlass/log-count/merge_result.txt"
    assert json.loads(run(windlass, "store", "cat", url, cwd=place, environment=environment)) == COUNTS
