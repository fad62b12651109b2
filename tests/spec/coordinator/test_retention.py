"""What is forgotten when, and that it is forgotten whole."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from tests.support.builders import a_job, a_task
from tests.support.coordinator import InMemoryCoordinator
from tests.support.invariants import InvariantWatch
from windlass_coordinator.core.records import JobKey
from windlass_coordinator.core.retention import RetentionPolicy
from windlass_coordinator.engine.retain import Forgotten, forget_jobs
from windlass_proto.model.ids import JobId
from windlass_proto.model.states import JobState

DAY = timedelta(days=1)
A_WEEK = RetentionPolicy(finished_jobs=7 * DAY, deleted_jobs=DAY, facts=7 * DAY)
FOR_EVER = RetentionPolicy(finished_jobs=None, deleted_jobs=None, facts=None)
TABLES = ("jobs", "tasks", "edges", "instances", "attempts", "ready_again", "submissions")


class ForgetfulCoordinator(InMemoryCoordinator):
    def step(self, policy: RetentionPolicy = A_WEEK, *, after: int = 0, rows_max: int = 2000) -> Forgotten:
        """The invariants compare with what was there before, so they begin anew."""
        self.watch = InvariantWatch()
        return self.store.run_now(
            partial(forget_jobs, policy=policy, after=JobKey(after), now=self.now, rows_max=rows_max)
        )

    def run_a_job(self, *, key: str = "", instances: int = 1) -> JobId:
        job_id = self.submit(a_job(a_task(instances=instances), a_task("last", after=["task"])), key=key)
        node = self.node(slots=64, cpu=64)
        while not self.state(job_id).is_terminal:
            self.finish(node)
        return job_id

    def submit_the_newest(self) -> JobId:
        """Behind which all others may go."""
        return self.submit(a_job(name="newest"))

    def rows_of_tables(self) -> dict[str, int]:
        return {table: int(self.rows(f"SELECT count(*) FROM {table}")[0][0]) for table in TABLES}


@pytest.fixture
def coordinator() -> Iterator[ForgetfulCoordinator]:
    with ForgetfulCoordinator() as coordinator:
        yield coordinator


def test_a_job_goes_whole_when_it_was_kept_long_enough_after_its_end(
    coordinator: ForgetfulCoordinator,
) -> None:
    job = coordinator.run_a_job(key="once", instances=5)
    coordinator.submit_the_newest()
    left = dict.fromkeys(TABLES, 0) | {"jobs": 1, "tasks": 1}

    coordinator.later(7 * DAY - timedelta(seconds=1))
    assert coordinator.step().jobs == []
    coordinator.later(timedelta(seconds=1))
    assert coordinator.step().jobs == [job]
    assert coordinator.rows_of_tables() == left


def test_its_idempotency_key_goes_with_it(coordinator: ForgetfulCoordinator) -> None:
    first = coordinator.submit(key="once")
    coordinator.finish(coordinator.node())
    coordinator.submit_the_newest()
    assert coordinator.submit(key="once") == first
    coordinator.later(8 * DAY)
    coordinator.step()
    assert coordinator.submit(key="once") != first


def test_what_has_not_ended_is_kept_however_old(coordinator: ForgetfulCoordinator) -> None:
    coordinator.submit()
    coordinator.submit_the_newest()
    coordinator.later(1000 * DAY)
    assert coordinator.step() == Forgotten(jobs=[], rows=0, go_on_after=None)


def test_a_deleted_job_goes_sooner(coordinator: ForgetfulCoordinator) -> None:
    job = coordinator.run_a_job()
    coordinator.submit_the_newest()
    coordinator.delete(job)
    coordinator.later(DAY)
    assert coordinator.step().jobs == [job]


def test_a_job_that_was_restarted_is_not_old_any_more(coordinator: ForgetfulCoordinator) -> None:
    job = coordinator.run_a_job()
    coordinator.submit_the_newest()
    coordinator.later(8 * DAY)
    coordinator.restart(job, all_instances=True)
    assert coordinator.step().jobs == []


def test_without_a_policy_everything_is_kept_for_ever(coordinator: ForgetfulCoordinator) -> None:
    coordinator.delete(coordinator.run_a_job())
    coordinator.run_a_job()
    coordinator.submit_the_newest()
    coordinator.later(10_000 * DAY)
    assert coordinator.step(FOR_EVER).jobs == []


def test_the_newest_job_stays_so_that_its_keys_are_never_given_out_again(
    coordinator: ForgetfulCoordinator,
) -> None:
    coordinator.run_a_job()
    newest = coordinator.run_a_job()
    keys = coordinator.rows("SELECT max(job_key), (SELECT max(task_key) FROM tasks) FROM jobs")[0]
    coordinator.later(8 * DAY)
    coordinator.step()
    assert coordinator.state(newest) is JobState.SUCCEEDED

    coordinator.submit()
    after = coordinator.rows("SELECT max(job_key), (SELECT max(task_key) FROM tasks) FROM jobs")[0]
    assert (after[0], after[1]) == (keys[0] + 1, keys[1] + 1)


def test_a_large_job_is_hidden_at_once_and_goes_in_small_steps(coordinator: ForgetfulCoordinator) -> None:
    job = coordinator.run_a_job(instances=30)
    coordinator.submit_the_newest()
    coordinator.later(8 * DAY)

    first = coordinator.step(rows_max=10)
    assert (first.jobs, first.rows) == ([], 10)
    assert coordinator.rows("SELECT count(*) FROM jobs WHERE deleted_at IS NULL")[0][0] == 1

    steps, place = 1, first.go_on_after
    while place is not None:
        step = coordinator.step(after=place, rows_max=10)
        assert step.rows <= 11
        steps, place = steps + 1, step.go_on_after
    assert steps >= 7
    assert coordinator.rows_of_tables()["attempts"] == 0
    assert coordinator.rows("SELECT count(*) FROM jobs WHERE job_id = ?", job)[0][0] == 0


def test_a_sweep_that_was_killed_in_the_middle_of_a_job_is_finished_by_the_next(
    coordinator: ForgetfulCoordinator,
) -> None:
    job = coordinator.run_a_job(instances=30)
    coordinator.submit_the_newest()
    coordinator.later(8 * DAY)
    coordinator.step(rows_max=10)
    assert coordinator.step(RetentionPolicy(finished_jobs=7 * DAY, deleted_jobs=None)).jobs == [job]


def test_old_facts_go_oldest_first(coordinator: ForgetfulCoordinator) -> None:
    coordinator.run_a_job()
    old = coordinator.rows("SELECT max(seq) FROM facts")[0][0]
    coordinator.later(8 * DAY)
    coordinator.run_a_job()
    before = coordinator.now - 7 * DAY

    removed = coordinator.store.run_now(lambda tx: tx.remove_facts(before=before, limit=3))
    assert removed == 3
    coordinator.store.run_now(lambda tx: tx.remove_facts(before=before, limit=10_000))
    assert coordinator.rows("SELECT min(seq) FROM facts")[0][0] == old + 1


def test_nobody_knows_jobs_that_were_deleted_or_never_were(coordinator: ForgetfulCoordinator) -> None:
    kept, deleted = coordinator.run_a_job(), coordinator.run_a_job()
    coordinator.delete(deleted)
    asked = [kept, deleted, JobId("job-of-nobody")]
    assert coordinator.store.run_now(lambda tx: tx.unknown_jobs(asked)) == asked[1:]
