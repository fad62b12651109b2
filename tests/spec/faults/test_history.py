"""The checker of the fault tests' histories: what it lets pass and what it finds."""

import sqlite3
from collections.abc import Iterator

import pytest

from tests.support.history import check_history
from tests.support.invariants import Rows
from tests.support.ledger import Entry
from windlass_coordinator.core.fences import fence_floor

JOB = "job-1"
FENCE = fence_floor(2) + 7


def an_entry(
    what: str = "start", *, task: str = "t", index: int = 0, attempt: int = 1, fence: int = FENCE
) -> Entry:
    return Entry(job_id=JOB, task=task, index=index, attempt=attempt, fence=fence, what=what, pid=1, at_s=0.0)


class Tables:
    """A job of the tasks `t` and `child`, and attempts of `t`."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:")
        self.db.executescript(
            """
            CREATE TABLE jobs (job_key, job_id);
            CREATE TABLE tasks (task_key, job_key, name);
            CREATE TABLE edges (parent_key, child_key);
            CREATE TABLE attempts (task_key, idx, attempt, fence, state, failure, exit_code);
            CREATE TABLE meta (key, value);
            INSERT INTO meta VALUES ('incarnation', '2');
            INSERT INTO jobs VALUES (1, 'job-1');
            INSERT INTO tasks VALUES (1, 1, 't'), (2, 1, 'child');
            INSERT INTO edges VALUES (1, 2);
            """
        )

    def attempt(
        self,
        state: str,
        *,
        task_key: int = 1,
        number: int = 1,
        fence: int = FENCE,
        failure: str = "",
        code: int = 0,
    ) -> None:
        values = (task_key, number, fence, state, failure, code)
        self.db.execute("INSERT INTO attempts VALUES (?, 0, ?, ?, ?, ?, ?)", values)

    @property
    def rows(self) -> Rows:
        return lambda query, *values: self.db.execute(query, values).fetchall()


@pytest.fixture
def tables() -> Iterator[Tables]:
    found = Tables()
    yield found
    found.db.close()


def test_a_command_that_started_once_and_ended_well_may_have_succeeded(tables: Tables) -> None:
    tables.attempt("SUCCEEDED")
    check_history([an_entry(), an_entry("end:0")], tables.rows)


def test_a_command_that_ran_twice_for_one_attempt_is_found(tables: Tables) -> None:
    tables.attempt("SUCCEEDED")
    with pytest.raises(AssertionError, match="I15: started more than once"):
        check_history([an_entry(), an_entry(), an_entry("end:0")], tables.rows)


def test_a_command_that_nobody_assigned_is_found(tables: Tables) -> None:
    tables.attempt("SUCCEEDED")
    strange = [an_entry(attempt=2, fence=FENCE + 2)]
    with pytest.raises(AssertionError, match="I15: started without being assigned"):
        check_history([an_entry(), an_entry("end:0"), *strange], tables.rows)


def test_what_was_assigned_after_the_backup_that_was_restored_may_be_unknown(tables: Tables) -> None:
    tables.attempt("SUCCEEDED")
    forgotten = an_entry(attempt=2, fence=fence_floor(2) - 1)
    check_history([an_entry(), an_entry("end:0"), forgotten], tables.rows)


@pytest.mark.parametrize("rest", [[], [an_entry("end:3")]])
def test_a_success_without_an_end_with_code_0_is_found(tables: Tables, rest: list[Entry]) -> None:
    tables.attempt("SUCCEEDED")
    with pytest.raises(AssertionError, match="I7"):
        check_history([an_entry(), *rest], tables.rows)


def test_another_exit_code_than_the_commands_own_is_found(tables: Tables) -> None:
    tables.attempt("FAILED", failure="USER_EXIT", code=4)
    with pytest.raises(AssertionError, match="I7"):
        check_history([an_entry(), an_entry("end:3")], tables.rows)


def test_a_child_that_started_before_its_parent_ended_is_found(tables: Tables) -> None:
    tables.attempt("SUCCEEDED")
    tables.attempt("LEASED", task_key=2)
    with pytest.raises(AssertionError, match="I11"):
        check_history([an_entry(), an_entry(task="child"), an_entry("end:0")], tables.rows)
