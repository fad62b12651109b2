"""The safety invariants of protocol.md, section 5, checked on the tables themselves.

A watch looks at the whole database after each step and compares with what it saw before. It recomputes
from attempts and instances, and believes no counter.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from windlass_proto.model.failures import FailureKind

Rows = Callable[..., Sequence[tuple[Any, ...]]]
InstanceKey = tuple[int, int]

_TERMINAL = {"SUCCEEDED", "FAILED", "STOPPED", "SKIPPED", "LOST", "RELEASED"}
_USER_BUDGET = {kind.value for kind in FailureKind if kind.spends_user_budget}


@dataclass(frozen=True, slots=True)
class _Job:
    state: str
    generation: int
    tasks_open: int


@dataclass(frozen=True, slots=True)
class _Task:
    job: int
    state: str
    has_work: int
    count: int
    next_index: int
    blocked_by: int
    max_retries: int
    counters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Instance:
    state: str
    attempt: int
    fence: int
    user_failures: int
    due: bool


@dataclass(frozen=True, slots=True)
class _Attempt:
    fence: int
    state: str
    ended: bool
    result: tuple[Any, ...]


@dataclass(slots=True)
class _Sight:
    """The whole database at one moment."""

    jobs: dict[int, _Job] = field(default_factory=dict)
    tasks: dict[int, _Task] = field(default_factory=dict)
    parents: dict[int, list[int]] = field(default_factory=dict)
    instances: dict[InstanceKey, _Instance] = field(default_factory=dict)
    attempts: dict[InstanceKey, dict[int, _Attempt]] = field(default_factory=dict)
    ready_again: set[InstanceKey] = field(default_factory=set)
    published: dict[InstanceKey, tuple[int, int]] = field(default_factory=dict)
    """Attempt and fence."""


class InvariantWatch:
    """Compares each sight of the database with the one before."""

    def __init__(self) -> None:
        self._before = _Sight()
        self._first_attempt: dict[InstanceKey, int] = defaultdict(int)
        """Attempts up to this one belong to earlier generations."""

    def look(self, rows: Rows) -> None:
        """Raises AssertionError that names the invariant and the place."""
        now = _see(rows)
        _check_gpus(rows)
        self._note_restarts(now)
        _check_counters(now)
        _check_jobs(now)
        _check_graph(now)
        for key, instance in now.instances.items():
            attempts = now.attempts.get(key, {})
            _check_attempts(key, instance, attempts)
            self._check_results(key, instance, attempts, now)
            self._check_growth(key, instance)
        self._check_terminal_attempts(now)
        self._check_stopped_jobs(now)
        self._check_published(now)
        self._before = now

    def _note_restarts(self, now: _Sight) -> None:
        for key, instance in now.instances.items():
            before = self._before.instances.get(key)
            job_key = now.tasks[key[0]].job
            if before is None or job_key not in self._before.jobs:
                continue
            is_restarted = now.jobs[job_key].generation > self._before.jobs[job_key].generation
            # What precedes a restart and what follows it may come in one commit, so neither need be seen.
            is_kept = instance.state == "SUCCEEDED" and before.attempt == instance.attempt
            if is_restarted and not is_kept:
                self._first_attempt[key] = before.attempt

    def _check_results(
        self, key: InstanceKey, instance: _Instance, attempts: dict[int, _Attempt], now: _Sight
    ) -> None:
        mine = [a for number, a in attempts.items() if number > self._first_attempt[key]]
        succeeded = [attempt for attempt in mine if attempt.state == "SUCCEEDED"]
        assert (instance.state == "SUCCEEDED") == (len(succeeded) == 1), f"I5: {key} {instance} {attempts}"
        if succeeded:
            assert succeeded[0].fence == instance.fence, f"I5: {key} a success with an old fence {attempts}"
        own_doing = sum(a.state == "FAILED" and a.result[0] in _USER_BUDGET for a in mine)
        assert instance.user_failures == own_doing, f"I9: {key} {instance} {attempts}"
        assert instance.user_failures <= now.tasks[key[0]].max_retries + 1, f"I9: {key} {instance}"

    def _check_growth(self, key: InstanceKey, instance: _Instance) -> None:
        before = self._before.instances.get(key)
        if before is not None:
            assert instance.attempt >= before.attempt, f"I1: {key} {before} -> {instance}"
            assert instance.fence >= before.fence, f"I1: {key} {before} -> {instance}"

    def _check_published(self, now: _Sight) -> None:
        for key, (number, fence) in now.published.items():
            attempt = now.attempts.get(key, {}).get(number)
            if attempt is None:
                assert key not in now.instances, f"I12: {key} published by {number}, which never was"
                continue
            assert attempt.fence == fence, f"I12: {key} published under fence {fence} {attempt}"
            before = self._before.published.get(key, (0, 0))
            assert (number, fence) >= before, f"I12: {key} published by {number} after {before}"

    def _check_terminal_attempts(self, now: _Sight) -> None:
        for key, attempts in self._before.attempts.items():
            for number, attempt in attempts.items():
                if attempt.ended:
                    assert now.attempts[key][number] == attempt, f"I4: {key} attempt {number} changed"

    def _check_stopped_jobs(self, now: _Sight) -> None:
        for job_key, before in self._before.jobs.items():
            job = now.jobs[job_key]
            if before.state in _TERMINAL | {"STOPPING"} and job.generation == before.generation:
                assert _attempts_of(job_key, now) == _attempts_of(job_key, self._before), (
                    f"I10: job {job_key} was {before.state} and has a new attempt"
                )


def _see(rows: Rows) -> _Sight:
    sight = _Sight()
    for key, *values in rows("SELECT job_key, state, generation, tasks_open FROM jobs"):
        sight.jobs[key] = _Job(*values)
    for key, *values, ready_again, active, retry_wait, succeeded, failed, stopped in rows(
        "SELECT task_key, job_key, state, has_work, instance_count, next_index, blocked_by, max_retries, "
        "ready_again, active, retry_wait, succeeded, failed, stopped FROM tasks"
    ):
        counters = (ready_again, active, retry_wait, succeeded, failed, stopped)
        sight.tasks[key] = _Task(*(*values, counters))
    for parent, child in rows("SELECT parent_key, child_key FROM edges"):
        sight.parents.setdefault(child, []).append(parent)
    for task, index, *values in rows(
        "SELECT task_key, idx, state, attempt, fence, user_failures, due_at IS NOT NULL FROM instances"
    ):
        sight.instances[task, index] = _Instance(*values)
    for task, index, number, fence, state, ended, *result in rows(
        "SELECT task_key, idx, attempt, fence, state, ended_at, failure, exit_code, exit_signal, reason, "
        "stdout_end, stderr_end, ran_for_us FROM attempts"
    ):
        attempt = _Attempt(fence, state, ended is not None, tuple(result))
        sight.attempts.setdefault((task, index), {})[number] = attempt
    for task, index, number, fence in rows("SELECT task_key, idx, attempt, fence FROM published"):
        sight.published[task, index] = (number, fence)
    sight.ready_again = {(task, index) for task, index in rows("SELECT task_key, idx FROM ready_again")}
    return sight


def _check_gpus(rows: Rows) -> None:
    """Of what else a node has, the node itself decides (decision 0003)."""
    used: Counter[int] = Counter()
    for node_key, gpus in rows(
        "SELECT a.node_key, t.gpus FROM attempts a JOIN tasks t ON t.task_key = a.task_key "
        "WHERE a.ended_at IS NULL AND t.gpus > 0"
    ):
        used[node_key] += gpus
    for node_key, gpus in rows("SELECT node_key, gpus FROM nodes"):
        assert used[node_key] <= gpus, f"I14: {used[node_key]} of {gpus} GPUs of node {node_key} are given"


def _check_counters(now: _Sight) -> None:
    by_task: dict[int, Counter[str]] = defaultdict(Counter)
    for (task_key, _), instance in now.instances.items():
        by_task[task_key][instance.state] += 1
    for key, task in now.tasks.items():
        n = by_task[key]
        counted = (
            n["READY"],
            n["ACTIVE"] + n["STOPPING"],
            n["RETRY_WAIT"],
            n["SUCCEEDED"],
            n["FAILED"],
            n["STOPPED"],
        )
        assert task.counters == counted, f"I21: task {key} says {task.counters}, its rows {counted}"
        assert task.next_index == n.total(), f"I21: task {key} has {n.total()} records: {task}"
        has_work = task.state in ("READY", "RUNNING") and (task.next_index < task.count or n["READY"] > 0)
        assert bool(task.has_work) == has_work, f"L8: task {key} {task}"
    ready = {key for key, instance in now.instances.items() if instance.state == "READY"}
    assert now.ready_again == ready, "the list of what can be claimed again"


def _check_jobs(now: _Sight) -> None:
    states: dict[int, list[str]] = defaultdict(list)
    for task in now.tasks.values():
        states[task.job].append(task.state)
    for key, job in now.jobs.items():
        still_open = sum(state not in _TERMINAL for state in states[key])
        assert job.tasks_open == still_open, f"I21: job {key} {job} has tasks {states[key]}"
        assert (job.state in _TERMINAL) == (still_open == 0), f"job {key} {job} has tasks {states[key]}"


def _check_graph(now: _Sight) -> None:
    for key, task in now.tasks.items():
        parents = [now.tasks[parent].state for parent in now.parents.get(key, ())]
        unfinished = sum(state != "SUCCEEDED" for state in parents)
        if task.state in ("READY", "RUNNING", "SUCCEEDED"):
            assert not unfinished, f"I11: task {key} is {task.state}, its parents {parents}"
        if task.state == "WAITING":
            assert task.blocked_by == unfinished > 0, f"I11: task {key} {task}, its parents {parents}"


def _check_attempts(key: InstanceKey, instance: _Instance, attempts: dict[int, _Attempt]) -> None:
    live = {number for number, attempt in attempts.items() if not attempt.ended}
    assert len(live) <= 1, f"I3: {key} {attempts}"
    assert (instance.state in ("ACTIVE", "STOPPING")) == bool(live), f"I3: {key} {instance} {attempts}"
    assert sorted(attempts) == list(range(1, instance.attempt + 1)), f"I1: {key} {attempts}"
    fences = [attempts[number].fence for number in sorted(attempts)]
    assert fences == sorted(set(fences)), f"I2: {key} fences {fences}"
    assert instance.fence >= fences[-1], f"I1: {key} {instance} {attempts}"
    if live:
        assert live == {instance.attempt}, f"I3: {key} {instance} {attempts}"
        assert fences[-1] == instance.fence, f"I6: {key} a live attempt with an old fence"
    newest = attempts[instance.attempt]
    if newest.state in ("LOST", "RELEASED"):
        assert instance.fence > newest.fence, f"I6: {key} {newest.state} without a new fence"
    for attempt in attempts.values():
        assert (attempt.state in _TERMINAL) == attempt.ended, f"I4: {key} {attempt}"
    assert instance.due == (instance.state == "RETRY_WAIT"), f"{key} {instance}"


def _attempts_of(job_key: int, sight: _Sight) -> int:
    return sum(
        len(attempts) for key, attempts in sight.attempts.items() if sight.tasks[key[0]].job == job_key
    )
