"""A laptop system whose programs are killed, restarted, started twice."""

import signal
import time
from pathlib import Path

import pytest

from tests.e2e.laptop_user import DEADLINE_S, User, left_behind
from windlass.processes import ProcessIdentity


def until_replaced(user: User, name: str, old: ProcessIdentity) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while user.laptop.read_state().children.get(name) in (None, old):
        assert time.monotonic() < give_up_at, f"{name} was not started again"
        time.sleep(0.05)


def a_running_job(user: User, gate: Path) -> str:
    """A job whose two instances have started and wait for the file `gate`."""
    command = f"echo started $$; while [ ! -e {gate} ]; do sleep 0.1; done; echo ended $$"
    job_id = user.gets("submit", command, "-n", "2").strip()
    give_up_at = time.monotonic() + DEADLINE_S
    while user.types("logs", job_id).out.count("started") < 2:
        assert time.monotonic() < give_up_at, "the job did not start"
        time.sleep(0.1)
    return job_id


def pids_of(output: str) -> tuple[list[str], list[str]]:
    """Those that started and those that ended, as the commands wrote them."""
    lines = [line.split() for line in output.splitlines() if line.startswith(("started", "ended"))]
    return (
        sorted(pid for word, pid in lines if word == "started"),
        sorted(pid for word, pid in lines if word == "ended"),
    )


@pytest.mark.parametrize("name", ["coordinator", "agent 1"])
def test_a_program_killed_in_the_middle_of_a_job_heals_and_the_job_ends_right(
    user: User, tmp_path: Path, name: str
) -> None:
    job_id = a_running_job(user, tmp_path / "gate")
    before = user.child(name)
    assert before.send(signal.SIGKILL)
    until_replaced(user, name, before)
    (tmp_path / "gate").touch()
    assert user.gets("wait", job_id).strip() == f"{job_id} SUCCEEDED"
    started, ended = pids_of(user.gets("logs", job_id))
    assert (len(started), started) == (2, ended), "the commands kept their processes"
    instances = user.gets_json("job", job_id)["claimed_instances"]
    assert [len(instance["attempts"]) for instance in instances] == [1, 1]


def test_a_second_start_says_that_it_is_running_already(user: User) -> None:
    ended = user.types("up")
    assert ended.code == 1
    assert "running already" in ended.err
    assert "windlass down" in ended.err


def test_data_outlives_going_down_and_nothing_else_does(user: User) -> None:
    user.gets("submit", "echo kept", "--follow")
    job_id = user.gets_json("job", "last")["job_id"]
    address = user.laptop.profile().coordinator
    assert "the data is kept" in user.goes_down()
    assert left_behind(user.data) == []
    unreachable = user.types("jobs")
    assert (unreachable.code, "windlass up" in unreachable.err) == (1, True)
    assert user.goes_up()["coordinator"] == address
    assert user.gets("logs", job_id) == "kept\n"
    nodes = user.gets_json("nodes")
    assert sorted(node["name"] for node in nodes) == ["laptop-1", "laptop-2"]


def test_what_a_killed_supervisor_leaves_behind_is_ended_by_down(user: User) -> None:
    user.gets("submit", "sleep 300")
    supervisor = user.laptop.read_state().supervisor
    assert supervisor is not None
    assert supervisor.send(signal.SIGKILL)
    give_up_at = time.monotonic() + DEADLINE_S
    while supervisor.is_alive():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    assert "the supervisor was gone; ended" in user.gets("down")
    assert left_behind(user.data) == []
    user.goes_up()
    user.gets("stop", "last")


def test_down_with_nothing_running_says_so(tmp_path: Path) -> None:
    nobody = User(data=tmp_path / "data")
    assert nobody.gets("down") == f"nothing is running in {tmp_path / 'data'}\n"
