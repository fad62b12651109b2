"""The programs of the genome example, run as a node runs them."""

import os
import subprocess
import sys
from pathlib import Path

GENOME = Path(__file__).parents[2] / "examples" / "genome"
SAMPLES = "12"


def python(program: Path, *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, program, *arguments],
        cwd=cwd,
        env=env or dict(os.environ),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return done.stdout


def test_three_instances_find_together_what_was_planted(tmp_path: Path) -> None:
    python(GENOME / "prepare.py", "input", "--samples", SAMPLES, cwd=tmp_path)
    for index in range(3):
        env = {"WINDLASS_INDEX": str(index), "WINDLASS_INSTANCE_COUNT": "3"}
        said = python(GENOME / "program" / "call.py", cwd=tmp_path, env=env)
        assert len(said.splitlines()) == 4
    python(GENOME / "program" / "merge.py", cwd=tmp_path)
    said = python(GENOME / "check.py", "result/variants.tsv", "--samples", SAMPLES, cwd=tmp_path)
    assert said.startswith("all 12 planted differences were found")
