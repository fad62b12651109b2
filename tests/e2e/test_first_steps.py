"""What a newcomer types in the first minutes, on a system of this machine."""

import json
from pathlib import Path

from tests.e2e.laptop_user import DEADLINE_S, User
from windlass import BlockingClient, Client, JobSpec, LogState, ShellLine, TaskName, TaskSpec

SAY = TaskName("say")


def test_a_command_runs_three_times_and_its_output_is_shown(user: User) -> None:
    ended = user.types("submit", "echo hello from $WINDLASS_INDEX", "-n", "3", "--follow")
    assert ended.code == 0, ended
    assert sorted(ended.out.splitlines()) == [f"task/{index} | hello from {index}" for index in range(3)]
    assert "task SUCCEEDED 3/3" in ended.err
    assert ended.err.rstrip().endswith("job SUCCEEDED")


def test_output_is_shown_while_the_command_still_runs(user: User, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"echo first; while [ ! -e {gate} ]; do sleep 0.1; done; echo second"
    # The timeout ends the job, and so the waiting for a line, if the output should never be shown.
    with user.watches("submit", command, "--follow", "--timeout", f"{DEADLINE_S}s") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "task/0 | first\n"
        with user.watches("logs", "last", "task/0", "-f") as log:
            assert log.stdout is not None
            assert log.stdout.readline() == "first\n"
            gate.touch()
            assert log.stdout.read() == "second\n"
        assert following.stdout.read() == "task/0 | second\n"
        assert following.wait(DEADLINE_S) == 0


def test_after_two_dashes_stand_a_program_and_its_arguments_and_no_shell(user: User) -> None:
    ended = user.types("submit", "--follow", "--", "printf", "%s\n", "$HOME;|")
    assert (ended.code, ended.out) == (0, "task/0 | $HOME;|\n"), ended


def test_a_job_is_found_by_the_beginning_of_its_id_and_by_last(user: User) -> None:
    job_id = user.gets("submit", "echo found; echo trouble >&2", "--name", "find-me").strip()
    assert user.gets("wait", "last").strip() == f"{job_id} SUCCEEDED"
    assert user.gets_json("job", job_id[4:16])["name"] == "find-me"
    assert job_id[:14] in user.gets("jobs", "--name", "find-me")
    assert user.gets("logs", job_id[:14]) == "found\n"
    assert user.gets("logs", "last", "task/0", "--stderr") == "trouble\n"
    assert "task/0" in user.gets("job", job_id, "task")


def test_logs_that_are_no_text_come_back_byte_for_byte(user: User) -> None:
    user.gets("submit", r"printf '\001\033[31mred\n'", "--follow")
    assert user.gets("logs", "last") == "\x01\x1b[31mred\n"


def test_the_exit_code_of_wait_is_the_jobs(user: User) -> None:
    user.gets("submit", "exit 7")
    ended = user.types("wait", "last")
    assert ended.code == 7, ended
    assert "FAILED" in ended.out
    assert "USER_EXIT exit code 7\n" in ended.err
    shown = user.gets("job", "last")
    assert "task/0 failed on laptop-" in shown
    assert "windlass logs" in shown


def test_a_command_that_does_not_exist_fails_with_127_and_a_reason(user: User) -> None:
    ended = user.types("submit", "--follow", "--", "no-such-program")
    assert ended.code == 127, ended
    assert "task/0 failed on laptop-" in ended.err
    assert "USER_CONFIG no-such-program: command not found (exit code 127)" in ended.err
    (instance,) = user.gets_json("job", "last")["claimed_instances"]
    assert "no-such-program" in instance["attempts"][-1]["reason"]


def test_a_failing_command_is_tried_again_as_often_as_was_said(user: User) -> None:
    ended = user.types("submit", "exit 3", "--retries", "1", "--follow")
    assert ended.code == 3, ended
    (instance,) = user.gets_json("job", "last")["claimed_instances"]
    assert instance["user_failures"] == 2


def test_a_timeout_ends_the_command(user: User) -> None:
    assert user.types("submit", "sleep 60", "--timeout", "1s", "--follow").code != 0
    (instance,) = user.gets_json("job", "last")["claimed_instances"]
    assert instance["attempts"][-1]["failure"] == "TIMEOUT"


def test_a_running_job_is_stopped_and_can_be_deleted(user: User) -> None:
    job_id = user.gets("submit", "sleep 300").strip()
    assert "within 300ms; it goes on" in user.types("wait", job_id, "--timeout", "300ms").err
    user.gets("stop", job_id)
    assert user.types("wait", job_id).out.startswith(f"{job_id} STOPPED")
    assert user.gets("delete", job_id).strip() == f"{job_id} deleted"
    assert user.types("job", job_id).code == 1


def test_a_finished_job_runs_again(user: User) -> None:
    job_id = user.gets("submit", "date +%s%N").strip()
    user.gets("wait", job_id)
    first = user.gets("logs", job_id)
    user.gets("restart", job_id, "--all")
    user.gets("wait", job_id)
    assert user.gets("logs", job_id) != first


def test_programs_inputs_and_outputs_travel_with_the_job(user: User, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "upper.py").write_text(
        "import os, pathlib\n"
        "text = pathlib.Path('in/words.txt').read_text()\n"
        "out = pathlib.Path('out'); out.mkdir(exist_ok=True)\n"
        "(out / 'words.txt').write_text(text.upper() + os.environ['MARK'])\n"
    )
    (tmp_path / "words.txt").write_text("alpha beta")
    user.gets("store", "cp", str(tmp_path / "words.txt"), "oss://windlass/travel/in/")
    options = ["-r", "oss://windlass/travel/in/:in", "-w", "out:oss://windlass/travel/out/", "-e", "MARK:!"]
    stdout = ["--stdout", "oss://windlass/travel/logs/"]
    ended = user.types(
        "submit",
        "python3 upper.py && echo done",
        "-p",
        "program",
        *options,
        *stdout,
        "--follow",
        cwd=tmp_path,
    )
    assert ended.code == 0, ended
    assert user.gets("store", "cat", "oss://windlass/travel/out/words.txt") == "ALPHA BETA!"
    job_id = user.gets_json("job", "last")["job_id"]
    assert user.gets("store", "cat", f"oss://windlass/travel/logs/stdout.{job_id}.task.0") == "done\n"


def test_a_job_file_runs_in_its_order_and_the_command_line_counts_more(user: User, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(
        json.dumps(
            {
                "name": "order",
                "defaults": {"env": {"WHO": "file"}},
                "tasks": {
                    "first": {"shell": "echo first $WHO"},
                    "second": {"shell": "echo second $WHO", "after": "first"},
                },
            }
        )
    )
    ended = user.types("submit", "-f", "job.json", "-e", "WHO:me", "--follow", cwd=tmp_path)
    assert ended.code == 0, ended
    assert sorted(ended.out.splitlines()) == ["first/0 | first me", "second/0 | second me"]


def test_a_broken_job_file_is_told_with_all_its_problems_and_nothing_is_stored(
    user: User, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text("name: broken\ntasks:\n  a: {shell: x, instances: 0, aftr: b}\n")
    ended = user.types("submit", "-f", "job.yaml", cwd=tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines() == [
        "error: the job has 2 problems; nothing was submitted",
        "  tasks.a.aftr: unknown field; did you mean 'after'?",
        "  tasks.a.instances: must be >= 1 (is 0)",
    ]
    assert user.gets_json("jobs", "--name", "broken") == []


def test_the_seeds_job_cfg_says_what_it_ignores(user: User, tmp_path: Path) -> None:
    (tmp_path / "job.cfg").write_text(
        "[DEFAULT]\njob_name=cfg\ndeps=a->b\nimage=img-ubuntu\n[a]\ncmd=echo one\n"
        "[b]\ncmd=echo two\nnodes=2\n"
    )
    ended = user.types("submit", "-f", "job.cfg", "--follow", cwd=tmp_path)
    assert ended.code == 0, ended
    # Streams are carried side by side: lines of different instances may overtake each other.
    assert sorted(ended.out.splitlines()) == ["a/0 | one", "b/0 | two", "b/1 | two"]
    assert "note: job.cfg: [DEFAULT] image is ignored" in ended.err


def test_usage_mistakes_exit_with_2_and_other_errors_with_1(user: User) -> None:
    assert user.types("submit").code == 2
    assert user.types("submit", "x", "--timeout", "soon").code == 2
    assert user.types("submit", "x", "-r", "nonsense").code == 2
    assert user.types("no-such-command").code == 2
    unknown = user.types("job", "job-" + "0" * 32)
    assert (unknown.code, unknown.out, len(unknown.err.splitlines())) == (1, "", 1)


def test_the_nodes_are_the_agents_that_were_started(user: User) -> None:
    nodes = user.gets_json("nodes")
    assert sorted((node["name"], node["state"], node["slots"]) for node in nodes) == [
        ("laptop-1", "READY", 2),
        ("laptop-2", "READY", 2),
    ]
    (cluster,) = user.gets_json("clusters")
    assert (cluster["name"], cluster["nodes_ready"], cluster["slots"]) == ("default", 2, 4)


async def test_output_asked_for_right_after_the_end_is_all_there(user: User) -> None:
    command = "head -c 3000000 /dev/zero | tr '\\0' x"
    async with Client(user.laptop.profile()) as client:
        spec = JobSpec(name="big", tasks=(TaskSpec(name=SAY, command=ShellLine(line=command)),))
        job_id = await client.submit(spec)
        await client.wait(job_id)
        chunks = [chunk async for chunk in client.follow_log(job_id, SAY)]
    assert b"".join(chunk.data for chunk in chunks) == b"x" * 3_000_000
    assert chunks[-1].state is LogState.COMPLETE


def test_a_part_of_a_log_is_read_without_an_event_loop(user: User) -> None:
    with BlockingClient.open(user.laptop.profile()) as client:
        spec = JobSpec(name="part", tasks=(TaskSpec(name=SAY, command=ShellLine(line="printf 0123456789")),))
        job_id = client.submit(spec)
        whole = list(client.follow_log(job_id, SAY))
        assert b"".join(chunk.data for chunk in whole) == b"0123456789"
        assert b"".join(chunk.data for chunk in client.follow_log(job_id, SAY, offset=7)) == b"789"
        part = list(client.read_log(job_id, SAY, offset=2, limit=3))
        assert b"".join(chunk.data for chunk in part) == b"234"
        assert {chunk.attempt for chunk in (*whole, *part)} == {1}
        assert client.newest().job_id == job_id
