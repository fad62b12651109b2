"""The log-count example ends with the same counts, whatever is killed on the way."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.laptop_user import DEADLINE_S, User

LOG_COUNT = Path(__file__).parents[2] / "examples" / "log-count"
COUNTS = {"INFO": 2460, "WARN": 2448, "DEBUG": 2509, "ERROR": 2583}
RESULT = "oss://windlass/log-count/merge_result.txt"


@pytest.fixture(scope="module")
def log(user: User, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The generated log lies in the store."""
    file = tmp_path_factory.mktemp("log") / "log-count-data.txt"
    subprocess.run([sys.executable, LOG_COUNT / "generate.py", file], check=True, timeout=DEADLINE_S)
    user.gets("store", "cp", str(file), "oss://windlass/log-count/log-count-data.txt")


def until_running(user: User, task: str) -> None:
    """Waits until instances of `task` of the newest job run (or have run)."""
    give_up_at = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up_at:
        answer = user.types("job", "last", "--json")
        states = {one["name"]: one["state"] for one in json.loads(answer.out)["tasks"]} if answer.out else {}
        if states.get(task) in ("RUNNING", "SUCCEEDED"):
            return
    pytest.fail(f"task {task} never ran")


@pytest.mark.parametrize("victim", ["coordinator", "agent 1"])
@pytest.mark.parametrize("moment", ["split", "count"])
@pytest.mark.usefixtures("log")
def test_the_counts_are_the_same_when_a_program_is_killed_on_the_way(
    user: User, victim: str, moment: str
) -> None:
    user.types("store", "rm", RESULT)
    job_id = user.gets("submit", "-f", str(LOG_COUNT / "job.yaml")).strip()
    until_running(user, moment)
    assert user.child(victim).send(signal.SIGKILL)
    assert user.gets("wait", job_id).strip() == f"{job_id} SUCCEEDED"
    assert json.loads(user.gets("store", "cat", RESULT)) == COUNTS
