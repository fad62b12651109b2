"""The doctor of a data directory: the right diagnosis, and nothing changed by it (fault U09)."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.coordinator_process import CoordinatorProcess
from tests.support.operator import contents, coordinator_verb
from windlass.client import Client
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, JobSpec, TaskSpec


def examine(data: Path) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code and findings by name; those that are not good count more than those that are."""
    completed = coordinator_verb("doctor", "--data", data, "--json")
    assert completed.stderr == ""
    found: dict[str, dict[str, str]] = {}
    for finding in json.loads(completed.stdout)["findings"]:
        if finding["what"] not in found or finding["health"] == "problem":
            found[finding["what"]] = finding
    return completed.returncode, found


def problems(found: dict[str, dict[str, str]]) -> set[str]:
    return {what for what, finding in found.items() if finding["health"] == "problem"}


@pytest.fixture
async def store(own: CoordinatorProcess) -> Path:
    """The directory of a coordinator that had a job and was killed: its log is not empty."""
    async with Client(own.profile) as client:
        spec = TaskSpec(name=TaskName("task"), command=Argv(args=("true",)), instances=5)
        await client.submit(JobSpec(name="job", tasks=(spec,)))
    own.kill()
    assert (own.data / "windlass.db-wal").stat().st_size > 0
    return own.data


def settled(data: Path) -> Path:
    """Its log is in the database."""
    with closing(sqlite3.connect(data / "windlass.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in ("windlass.db-wal", "windlass.db-shm"):
        (data / name).unlink(missing_ok=True)
    return data


def test_a_running_coordinators_store_is_healthy(own: CoordinatorProcess) -> None:
    code, found = examine(own.data)
    assert (code, problems(found)) == (0, set())
    assert found["coordinator.process"]["says"] == f"a coordinator runs on it (pid {own.process.pid})"
    assert own.process.poll() is None


def test_a_killed_coordinators_store_is_healthy_and_stays_byte_for_byte(store: Path) -> None:
    before = contents(store)
    code, found = examine(store)
    assert (code, problems(found)) == (0, set())
    assert found["database.whole"]["health"] == "good"
    assert found["books.tasks"]["health"] == "good"
    assert contents(store) == before


def test_people_are_told_in_lines(store: Path) -> None:
    completed = coordinator_verb("doctor", "--data", store)
    assert completed.returncode == 0
    assert any(line.startswith("good    database.whole: ") for line in completed.stdout.splitlines())


def cut_to_half(data: Path) -> None:
    file = settled(data) / "windlass.db"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def make_foreign(data: Path) -> None:
    (settled(data) / "windlass.db").unlink()
    with closing(sqlite3.connect(data / "windlass.db")) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")


def make_a_directory(data: Path) -> None:
    (settled(data) / "windlass.db").unlink()
    (data / "windlass.db").mkdir(mode=0o700)


def scribble(data: Path) -> None:
    """Over pages in the middle, as a disk does that loses sectors."""
    file = settled(data) / "windlass.db"
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 3 : len(whole) // 3 + 9000] = b"\xa5" * 9000
    file.write_bytes(whole)


def in_database(*statements: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        with closing(sqlite3.connect(data / "windlass.db")) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()
        settled(data)

    return change


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "zero length": (
        lambda data: (settled(data) / "windlass.db").write_bytes(b""),
        "database.whole",
        "is empty",
    ),
    "random bytes": (
        lambda data: (settled(data) / "windlass.db").write_bytes(bytes(range(1, 256)) * 64),
        "database.whole",
        "not a database",
    ),
    "half file": (cut_to_half, "database.whole", "was cut"),
    "lost sectors": (scribble, "database.whole", "damaged"),
    "a directory": (make_a_directory, "database.there", "not a file"),
    "a foreign database": (make_foreign, "database.ours", "another program"),
    "newer schema": (
        in_database("UPDATE alembic_version SET version_num = '9999'"),
        "database.schema",
        "newer than this program's",
    ),
    "main file missing": (
        lambda data: (data / "windlass.db").unlink(),
        "database.there",
        "is missing, but its log",
    ),
    "all missing": (lambda data: (settled(data) / "windlass.db").unlink(), "database.there", "there is none"),
    "counters": (in_database("UPDATE tasks SET succeeded = 3"), "books.tasks", "task task of job-"),
    "open tasks": (in_database("UPDATE jobs SET tasks_open = 9"), "books.jobs", "job-"),
    "stray rows": (
        in_database("PRAGMA foreign_keys = OFF", "UPDATE tasks SET job_key = 77"),
        "database.whole",
        "point to rows that are not there",
    ),
    "others may read": (lambda data: (data / "windlass.db").chmod(0o644), "files.permissions", "mode 0644"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named_with_what_to_do_and_nothing_is_changed(store: Path, damage: str) -> None:
    inflict, what, says = DAMAGES[damage]
    inflict(store)
    before = contents(store)

    code, found = examine(store)

    assert code == 1
    assert what in problems(found)
    assert says in found[what]["says"]
    assert found[what]["do"]
    assert contents(store) == before


def test_an_older_schema_is_no_problem_but_told(store: Path) -> None:
    in_database("UPDATE alembic_version SET version_num = '0001'")(store)
    before = contents(store)
    code, found = examine(store)
    assert (code, found["database.schema"]["health"]) == (0, "note")
    assert contents(store) == before


def test_a_store_without_its_log_is_whole_as_it_was_when_the_log_began(store: Path) -> None:
    """Nothing in the file tells that there was more; so it is neither called damaged nor changed."""
    (store / "windlass.db-wal").unlink()
    before = contents(store)
    code, found = examine(store)
    assert (code, found["database.whole"]["health"]) == (0, "good")
    assert contents(store) == before


def test_a_directory_that_is_not_there_could_not_be_looked_at(tmp_path: Path) -> None:
    missing = coordinator_verb("doctor", "--data", tmp_path / "nowhere")
    assert missing.returncode == 2
    assert "there is no directory" in missing.stderr


def test_what_may_not_be_read_is_told_apart_from_what_is_wrong(store: Path, tmp_path: Path) -> None:
    store.chmod(0)
    try:
        refused = coordinator_verb("doctor", "--data", store, obeys_modes=True)
    finally:
        store.chmod(0o700)
    assert refused.returncode == 2
    assert "run this as the coordinator's user" in refused.stderr


def test_logs_of_jobs_that_are_gone_and_streams_that_are_too_long_are_told(store: Path) -> None:
    with closing(sqlite3.connect(store / "windlass.db")) as db:
        (job_id, task_key) = db.execute(
            "SELECT job_id, task_key FROM jobs JOIN tasks USING (job_key)"
        ).fetchone()
        db.execute("UPDATE tasks SET next_index = 1, succeeded = 1")
        db.execute(
            "INSERT INTO instances (task_key, idx, state, attempt, fence) VALUES (?, 0, 'SUCCEEDED', 1, 7)",
            (task_key,),
        )
        db.execute(
            "INSERT INTO attempts (task_key, idx, attempt, fence, node_key, epoch, poll_seq, state, "
            "leased_at, ended_at, stdout_end, stderr_end) "
            "VALUES (?, 0, 1, 7, 1, 1, 1, 'SUCCEEDED', 1, 1, 4, 9)",
            (task_key,),
        )
        db.commit()
    streams = store / "logs" / job_id / str(task_key) / "0"
    streams.mkdir(parents=True)
    (streams / "0.1.stdout").write_bytes(b"longer")
    (streams / "0.1.stderr").write_bytes(b"short")
    (store / "logs" / "job-of-nobody").mkdir()

    code, found = examine(store)

    assert (code, problems(found)) == (1, {"logs.longer"})
    assert "0.1.stdout" in found["logs.longer"]["says"]
    assert "0.1.stderr" in found["logs.shorter"]["says"]
    assert "job-of-nobody" in found["logs.orphaned"]["says"]
