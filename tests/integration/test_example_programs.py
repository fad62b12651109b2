"""The programs of the examples, run as a node runs them: fresh work directories, data by way of a store."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNTS = {"INFO": 2460, "WARN": 2448, "DEBUG": 2509, "ERROR": 2583}


class ExampleRun:
    """A store with one example's data, and its tasks."""

    def __init__(self, example: str, directory: Path) -> None:
        self.example = EXAMPLES / example
        self.directory = directory
        self.store = directory / "store"
        self.store.mkdir()

    def prepare(self, program: str, name: str) -> None:
        self._python(self.example / program, self.store / name, cwd=self.directory, env=dict(os.environ))

    def task(self, program: str, *, instances: int = 1, parts: int | None = None) -> str:
        """Runs all instances on the store as it is; their outputs come into it when all have ended."""
        before = self.directory / "before"
        shutil.copytree(self.store, before)
        said = [self._instance(program, before, index, instances, parts) for index in range(instances)]
        shutil.rmtree(before)
        return "".join(said)

    def result(self, name: str) -> str:
        return (self.store / name).read_text(encoding="utf-8")

    def _instance(self, program: str, before: Path, index: int, instances: int, parts: int | None) -> str:
        work = self.directory / f"{program}.{index}"
        shutil.copytree(self.example / "program", work)
        shutil.copytree(before, work / "input")
        env = {"WINDLASS_INDEX": str(index), "WINDLASS_INSTANCE_COUNT": str(instances)}
        if parts is not None:
            env["PARTS"] = str(parts)
        said = self._python(Path(program), cwd=work, env=env)
        shutil.copytree(work / "output", self.store, dirs_exist_ok=True)
        shutil.rmtree(work)
        return said

    def _python(self, program: Path, *arguments: Path, cwd: Path, env: dict[str, str]) -> str:
        done = subprocess.run(
            [sys.executable, program, *arguments],
            cwd=cwd,
            env=env,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        return done.stdout


def test_the_generated_log_is_the_same_every_time_and_holds_the_promised_levels_in_no_order(
    tmp_path: Path,
) -> None:
    run = ExampleRun("log-count", tmp_path)
    run.prepare("generate.py", "one")
    run.prepare("generate.py", "two")
    lines = run.result("one").splitlines()
    assert run.result("one") == run.result("two")
    assert len(lines) == 10_000
    assert {level: sum(f"[{level}]" in line for line in lines) for level in COUNTS} == COUNTS
    assert {level: sum(f"[{level}]" in line for line in lines[:2_460]) for level in COUNTS} != {
        "INFO": 2460,
        "WARN": 0,
        "DEBUG": 0,
        "ERROR": 0,
    }


@pytest.mark.parametrize(("instances", "parts"), [(3, None), (1, None), (2, 5), (7, 7)])
def test_the_log_count_is_right_with_any_number_of_parts_and_instances(
    tmp_path: Path, instances: int, parts: int | None
) -> None:
    run = ExampleRun("log-count", tmp_path)
    run.prepare("generate.py", "log-count-data.txt")
    run.task("split.py", parts=parts)
    run.task("count.py", instances=instances, parts=parts)
    said = run.task("merge.py", parts=parts)
    assert said == json.dumps(COUNTS) + "\n"
    assert run.result("merge_result.txt") == said


def test_splitting_a_log_loses_and_breaks_no_line(tmp_path: Path) -> None:
    run = ExampleRun("log-count", tmp_path)
    log = "".join(f"{'x' * (n % 97)} {n}\n" for n in range(500)) + "no line end"
    (run.store / "log-count-data.txt").write_text(log, encoding="utf-8")
    run.task("split.py", parts=4)
    parts = [run.result(f"split_results/{part}.txt") for part in range(4)]
    assert "".join(parts) == log
    assert [part[-1] for part in parts[:3]] == ["\n"] * 3


def test_any_log_is_counted_a_line_once_by_its_first_level(tmp_path: Path) -> None:
    run = ExampleRun("log-count", tmp_path)
    lines = [b"WARNING: INFO is late", b"ERROR ERROR", b"\xff\xfe INFO", b"INFORMATION", b"no level", b""]
    (run.store / "log-count-data.txt").write_bytes(b"\n".join(lines))
    run.task("split.py", parts=2)
    run.task("count.py", instances=2, parts=2)
    assert json.loads(run.task("merge.py", parts=2)) == {"INFO": 1, "WARN": 1, "DEBUG": 0, "ERROR": 1}


def test_the_word_count_equals_a_plain_count_and_its_check_notices_a_single_wrong_word(
    tmp_path: Path,
) -> None:
    run = ExampleRun("word-count", tmp_path)
    run.prepare("prepare.py", "sources.tar")
    run.task("split.py")
    run.task("count.py", instances=4)
    run.task("merge.py")
    check = [sys.executable, str(run.example / "check.py")]
    subprocess.run([*check, str(run.store / "words.json")], check=True, timeout=60)
    words = json.loads(run.result("words.json"))
    words["import"] += 1
    (run.store / "words.json").write_text(json.dumps(words), encoding="utf-8")
    wrong = subprocess.run(
        [*check, str(run.store / "words.json")], check=False, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "the job counted otherwise than one process did: 1 words differ\n",
    )
