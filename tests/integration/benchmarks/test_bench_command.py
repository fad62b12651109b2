"""`python -m benchmarks` as a user runs it; whether a figure is good is not asked here."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
KEYS = {"figure", "value", "unit", "reference", "reference_value", "ratio", "min", "max", "n", "noise"}


def run_bench(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--patience", "0", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"BENCH_DIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_figures_that_were_asked_for_are_printed_one_json_line_each(tmp_path: Path) -> None:
    done = run_bench("submit_million,spawn_limit", "--rounds", "1", directory=tmp_path)

    assert (done.returncode, "had to be killed" in done.stderr) == (0, False), done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["figure"] for line in lines] == ["spawn_limit", "submit_million"]
    for line in lines:
        assert line.keys() >= KEYS
        assert 0 < line["min"] <= line["value"] <= line["max"]
        assert line["noise"].keys() >= {"cal_ms", "machine_busy_cores", "others_busy_cores"}
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_does_not_exist_measures_nothing(tmp_path: Path) -> None:
    done = run_bench("spawn_limit,dispach_ms", directory=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "benchmarks: there is no figure dispach_ms: did you mean dispatch_ms?\n"
