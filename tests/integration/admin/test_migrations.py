"""Changing versions: a newer schema is refused, an older one is brought up with all it holds (U01, U03)."""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine

from tests.support.coordinator_process import (
    READY_WITHIN_S,
    CoordinatorProcess,
    coordinator_command,
    environment,
)
from tests.support.operator import contents, coordinator_verb
from windlass.client import Client
from windlass_coordinator.stores.schema.migrations import known_revisions
from windlass_coordinator.stores.schema.upgrade import load_revision
from windlass_coordinator.stores.sqlite.files import APPLICATION_ID
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, TaskSpec, task_to_json
from windlass_proto.model.states import JobState

SPEC = task_to_json(TaskSpec(name=TaskName("task"), command=Argv(args=("true",)), instances=3))
ROWS_OF_THE_FIRST_VERSION = [
    ("INSERT INTO meta (key, value) VALUES ('incarnation', '1')", ()),
    ("INSERT INTO alembic_version (version_num) VALUES ('0001')", ()),
    ("INSERT INTO clusters (cluster_key, tenant, name, created_at) VALUES (1, 'default', 'default', 1)", ()),
    (
        "INSERT INTO nodes (node_key, node_id, tenant, cluster_key, name, state, epoch, nonce, last_nonce) "
        "VALUES (1, 'node-1', 'default', 1, 'node', 'READY', 3, 'n', 'n')",
        (),
    ),
    (
        "INSERT INTO jobs (job_key, job_id, tenant, name, state, tasks_open, submitted_at, started_at) "
        "VALUES (1, 'job-0123456789abcdef0123456789abcdef', 'default', 'old', 'RUNNING', 1, 1000000, "
        "2000000)",
        (),
    ),
    (
        "INSERT INTO submissions (tenant, idempotency_key, request_digest, job_id) "
        "VALUES ('default', 'once', 'digest', 'job-0123456789abcdef0123456789abcdef')",
        (),
    ),
    (
        "INSERT INTO tasks (task_key, job_key, name, state, cluster_key, has_work, instance_count, "
        "next_index, active, succeeded, spec) VALUES (1, 1, 'task', 'RUNNING', 1, 1, 3, 2, 1, 1, ?)",
        (SPEC,),
    ),
    (
        "INSERT INTO instances (task_key, idx, state, attempt, fence) VALUES (1, 0, 'SUCCEEDED', 1, ?1), "
        "(1, 1, 'ACTIVE', 1, ?1)",
        ((1 << 40) + 1,),
    ),
    (
        "INSERT INTO attempts (task_key, idx, attempt, fence, node_key, epoch, poll_seq, state, leased_at, "
        "ended_at, exit_code, stdout_end, stderr_end) VALUES "
        "(1, 0, 1, ?1, 1, 3, 1, 'SUCCEEDED', 2000000, 3000000, 0, 0, 0), "
        "(1, 1, 1, ?1, 1, 3, 1, 'RUNNING', 2000000, NULL, NULL, NULL, NULL)",
        ((1 << 40) + 1,),
    ),
]


def make_database_of_the_first_version(file: Path) -> None:
    """As version 0.1 left it, with a job in the middle of its work."""
    file.touch(mode=0o600)
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            load_revision("0001").upgrade()
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement, values in ROWS_OF_THE_FIRST_VERSION:
            connection.exec_driver_sql(statement, values)
    engine.dispose()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    make_database_of_the_first_version(data / "windlass.db")
    return data


def revision_of(data: Path) -> str:
    with closing(sqlite3.connect(data / "windlass.db")) as db:
        return str(db.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def tables_of(data: Path) -> set[str]:
    with closing(sqlite3.connect(data / "windlass.db")) as db:
        return {row[0] for row in db.execute("SELECT name FROM sqlite_master")}


async def test_a_database_of_the_first_version_is_brought_up_with_all_it_holds(old: Path) -> None:
    with CoordinatorProcess(old) as coordinator:
        async with Client(coordinator.profile) as client:
            (job,) = [job async for job in client.list()]
            instances = [one async for one in client.instances(job.job_id, all_attempts=True)]
        assert (job.name, job.state) == ("old", JobState.RUNNING)
        assert [(one.index, str(one.state)) for one in instances] == [
            (0, "SUCCEEDED"),
            (1, "ACTIVE"),
        ]
        coordinator.kill()
    assert revision_of(old) == known_revisions()[-1]
    findings = json.loads(coordinator_verb("doctor", "--data", old, "--json").stdout)
    assert findings["healthy"]


@pytest.mark.parametrize("step", range(1, len(known_revisions())))
def test_a_kill_in_the_middle_of_a_migration_leaves_the_old_schema_and_the_next_start_goes_on(
    old: Path, step: int
) -> None:
    before = tables_of(old)
    killed = subprocess.run(
        coordinator_command(old),
        env=environment()
        | {"WINDLASS_TEST_BUILD": "1", "WINDLASS_FAILPOINT": f"coord.migrate.after_step:{step}"},
        capture_output=True,
        timeout=READY_WITHIN_S,
        check=False,
    )
    assert killed.returncode == -9
    assert (revision_of(old), tables_of(old)) == ("0001", before)

    with CoordinatorProcess(old) as coordinator:
        coordinator.kill()
    assert revision_of(old) == known_revisions()[-1]


def test_a_kill_while_the_first_database_is_made_leaves_none_and_the_next_start_makes_it(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    killed = subprocess.run(
        coordinator_command(data),
        env=environment() | {"WINDLASS_TEST_BUILD": "1", "WINDLASS_FAILPOINT": "coord.migrate.after_step:2"},
        capture_output=True,
        timeout=READY_WITHIN_S,
        check=False,
    )
    assert killed.returncode == -9
    assert not (data / "windlass.db").exists()
    with CoordinatorProcess(data) as coordinator:
        coordinator.kill()
    assert revision_of(data) == known_revisions()[-1]


def test_an_older_program_refuses_a_newer_schema_and_leaves_it_as_it_is(old: Path) -> None:
    with closing(sqlite3.connect(old / "windlass.db")) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        db.commit()
    before = contents(old)["windlass.db"]

    refused = subprocess.run(
        coordinator_command(old),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=READY_WITHIN_S,
        check=False,
    )

    assert refused.returncode != 0
    assert "start the newer version that wrote it" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert contents(old)["windlass.db"] == before
