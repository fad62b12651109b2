"""What follows from ended attempts: instances, tasks, the DAG, jobs; all in the one transaction.

`conclude` is the only way an attempt becomes terminal, whoever ended it: a report, a revocation, a sweep.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from windlass_coordinator.core.job_lifecycle import decide_job_end, decide_task_end
from windlass_coordinator.core.records import Fact, JobKey, JobView, TaskBump, TaskView
from windlass_coordinator.core.retry import GiveUp, RetryPolicy, back_off, decide_retry, may_be_poison
from windlass_coordinator.core.task_graph import descendants
from windlass_coordinator.stores.base import AttemptEnd, InstanceChange, Transaction
from windlass_proto.model.facts import FactKind
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import TaskKey
from windlass_proto.model.states import AttemptState, InstanceState, JobState, TaskState

_JOB_FACTS = {
    JobState.SUCCEEDED: FactKind.JOB_SUCCEEDED,
    JobState.FAILED: FactKind.JOB_FAILED,
    JobState.STOPPED: FactKind.JOB_STOPPED,
}
_TASK_FACTS = {
    TaskState.SUCCEEDED: FactKind.TASK_SUCCEEDED,
    TaskState.FAILED: FactKind.TASK_FAILED,
    TaskState.STOPPED: FactKind.TASK_STOPPED,
    TaskState.SKIPPED: FactKind.TASK_SKIPPED,
}


# Attempts of an instance that may be given back before it has to wait for its next one.
_PROMPT_RELEASES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides besides the records: the retry policy and its randomness, in [0, 1)."""

    retry: RetryPolicy
    jitter: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An attempt that ends, and whether it had been asked to stop."""

    end: AttemptEnd
    was_stopping: bool = False


def conclude(tx: Transaction, endings: Sequence[Ending], *, rules: Rules, now: datetime) -> None:
    """Ends attempts and does all that follows."""
    if not endings:
        return
    # Tasks first: whoever changes attempts of a task has its row.
    tasks = tx.task_views({ending.end.ref.task_key for ending in endings})
    endings = [_named_poison(tx, ending, rules) for ending in endings]
    tx.end_attempts([ending.end for ending in endings], now=now)
    bumps: dict[TaskKey, TaskBump] = {key: TaskBump() for key in tasks}
    changes = []
    for ending in endings:
        task = tasks[ending.end.ref.task_key]
        change = _decide_instance(tx, ending, task, rules=rules, now=now)
        _count(bumps[task.task_key], change.state)
        changes.append(change)
    tx.change_instances(changes)
    jobs = tx.job_views({task.job_key for task in tasks.values()})
    tx.add_facts(_ended_facts(changes, tasks, jobs), now=now)
    tx.wakes.clusters |= {tasks[key].cluster_key for key, bump in bumps.items() if bump.ready_again}
    _settle(tx, bumps, tasks, jobs, now=now)


def _named_poison(tx: Transaction, ending: Ending, rules: Rules) -> Ending:
    """The instance is to blame when node after node is lost while it runs there (promise P18)."""
    end = ending.end
    if end.state is not AttemptState.LOST or end.failure is None or ending.was_stopping:
        return ending
    _, infra = tx.failure_counts(end.ref.task_key, end.ref.index)
    if not may_be_poison(end.failure, infra_failures=infra, policy=rules.retry):
        return ending
    nodes = tx.nodes_taken_down(end.ref, last=infra + 1)
    if nodes < rules.retry.poison_nodes:
        return ending
    reason = f"{nodes} nodes were lost while they ran it, this one because {end.reason}"
    return replace(ending, end=replace(end, failure=FailureKind.POISON, reason=reason))


def _decide_instance(
    tx: Transaction, ending: Ending, task: TaskView, *, rules: Rules, now: datetime
) -> InstanceChange:
    end = ending.end
    key, index = end.ref.task_key, end.ref.index
    match end.state:
        case AttemptState.SUCCEEDED:
            return InstanceChange(task_key=key, index=index, state=InstanceState.SUCCEEDED)
        case AttemptState.STOPPED:
            return InstanceChange(task_key=key, index=index, state=InstanceState.STOPPED)
    # A revoked attempt must not be able to change anything any more.
    revoked = end.state in (AttemptState.LOST, AttemptState.RELEASED)
    if ending.was_stopping:
        return InstanceChange(task_key=key, index=index, state=InstanceState.STOPPED, raise_fence=revoked)
    if end.state is AttemptState.RELEASED:
        return _give_back(tx, end, rules=rules, now=now)
    user, infra = tx.failure_counts(key, index)
    decision = decide_retry(
        end.failure or FailureKind.INFRA_NODE_LOST,
        user_failures=user,
        infra_failures=infra,
        max_retries=task.max_retries,
        policy=rules.retry,
        jitter=rules.jitter(),
    )
    due = None if isinstance(decision, GiveUp) else now + decision.delay
    if due is not None:
        tx.wakes.wake_at(due)
    return InstanceChange(
        task_key=key,
        index=index,
        state=InstanceState.FAILED if due is None else InstanceState.RETRY_WAIT,
        user_failures=decision.user_failures,
        infra_failures=decision.infra_failures,
        due_at=due,
        raise_fence=revoked,
        avoid_node=due is not None and decision.infra_failures > infra,
    )


def _give_back(tx: Transaction, end: AttemptEnd, *, rules: Rules, now: datetime) -> InstanceChange:
    """No budget is spent; but what is given back again and again waits, lest it goes round for ever."""
    ref = end.ref
    again = ref.attempt - _PROMPT_RELEASES
    if again <= 0:
        return InstanceChange(
            task_key=ref.task_key, index=ref.index, state=InstanceState.READY, raise_fence=True
        )
    due = now + back_off(again, policy=rules.retry, jitter=rules.jitter())
    tx.wakes.wake_at(due)
    return InstanceChange(
        task_key=ref.task_key,
        index=ref.index,
        state=InstanceState.RETRY_WAIT,
        due_at=due,
        raise_fence=True,
    )


def _count(bump: TaskBump, state: InstanceState) -> None:
    bump.active -= 1
    match state:
        case InstanceState.SUCCEEDED:
            bump.succeeded += 1
        case InstanceState.FAILED:
            bump.failed += 1
        case InstanceState.STOPPED:
            bump.stopped += 1
        case InstanceState.READY:
            bump.ready_again += 1
        case InstanceState.RETRY_WAIT:
            bump.retry_wait += 1


def _ended_facts(
    changes: Sequence[InstanceChange], tasks: Mapping[TaskKey, TaskView], jobs: Mapping[JobKey, JobView]
) -> list[Fact]:
    """One fact for all instances of a job that went the same way, not one for each."""
    groups: dict[tuple[JobKey, InstanceState], dict[TaskKey, list[int]]] = {}
    for change in changes:
        group = groups.setdefault((tasks[change.task_key].job_key, change.state), {})
        group.setdefault(change.task_key, []).append(change.index)
    return [
        Fact(
            kind=FactKind.INSTANCES_ENDED if state.is_terminal else FactKind.INSTANCES_RETRY,
            tenant=jobs[job_key].tenant,
            job_key=job_key,
            payload={"state": state, "index": {str(key): index for key, index in group.items()}},
        )
        for (job_key, state), group in groups.items()
    ]


def _settle(
    tx: Transaction,
    bumps: Mapping[TaskKey, TaskBump],
    tasks: Mapping[TaskKey, TaskView],
    jobs: Mapping[JobKey, JobView],
    *,
    now: datetime,
) -> None:
    ended: dict[TaskKey, TaskState] = {}
    states = {}
    for key, bump in bumps.items():
        end = decide_task_end(tasks[key], bump)
        if end is not None:
            ended[key] = end
        states[key] = (bump, end or tasks[key].state)
    tx.bump_tasks(states, ended=ended.keys(), now=now)
    _close_tasks(tx, ended, tasks, jobs, now=now)
    failing = {tasks[key].job_key for key, bump in bumps.items() if bump.failed}
    for job_key, job in jobs.items():
        tx.wakes.jobs.add(job.job_id)
        if job_key in failing and job.fail_fast and job.state in (JobState.WAITING, JobState.RUNNING):
            stop_live_job(
                tx, job, stop_as=JobState.FAILED, reason=_failure_reason(bumps, tasks, job), now=now
            )
    touched = {tasks[key].job_key for key in ended} | {key for key in failing if jobs[key].fail_fast}
    end_finished_jobs(tx, touched, now=now)


def _failure_reason(
    bumps: Mapping[TaskKey, TaskBump], tasks: Mapping[TaskKey, TaskView], job: JobView
) -> str:
    names = [tasks[key].name for key, b in bumps.items() if b.failed and tasks[key].job_key == job.job_key]
    return f"an instance of task {names[0]} failed"


def _close_tasks(
    tx: Transaction,
    ended: Mapping[TaskKey, TaskState],
    tasks: Mapping[TaskKey, TaskView],
    jobs: Mapping[JobKey, JobView],
    *,
    now: datetime,
) -> None:
    if not ended:
        return
    closed = Counter(dict.fromkeys(jobs, 0))
    closed.update(tasks[key].job_key for key in ended)
    facts = _task_facts([(_TASK_FACTS[state], tasks[key]) for key, state in ended.items()], jobs)
    facts += _open_children(tx, [key for key, state in ended.items() if state is TaskState.SUCCEEDED], jobs)
    by_job: dict[JobKey, list[TaskKey]] = {}
    for key, state in ended.items():
        if state is not TaskState.SUCCEEDED:
            by_job.setdefault(tasks[key].job_key, []).append(key)
    for job_key, roots in by_job.items():
        skipped = _skip_descendants(tx, job_key, roots, now=now)
        closed[job_key] += len(skipped)
        facts += _task_facts([(FactKind.TASK_SKIPPED, task) for task in skipped], jobs)
    tx.open_tasks({job_key: -count for job_key, count in closed.items() if count})
    tx.add_facts(facts, now=now)


def _task_facts(happened: Sequence[tuple[FactKind, TaskView]], jobs: Mapping[JobKey, JobView]) -> list[Fact]:
    """One fact for all tasks of a job that the same thing happened to."""
    groups: dict[tuple[JobKey, FactKind], list[TaskKey]] = {}
    for kind, task in happened:
        groups.setdefault((task.job_key, kind), []).append(task.task_key)
    return [
        Fact(kind=kind, tenant=jobs[job_key].tenant, job_key=job_key, payload={"tasks": keys})
        for (job_key, kind), keys in groups.items()
    ]


def _open_children(
    tx: Transaction, succeeded: Sequence[TaskKey], jobs: Mapping[JobKey, JobView]
) -> list[Fact]:
    children = tx.children_of(succeeded)
    if not children:
        return []
    blockers_gone = Counter(child for group in children.values() for child in group)
    ready = tx.unblock(blockers_gone.keys(), by=blockers_gone)
    tx.wakes.clusters |= {task.cluster_key for task in ready}
    return _task_facts([(FactKind.TASK_READY, task) for task in ready], jobs)


def _skip_descendants(
    tx: Transaction, job_key: JobKey, roots: Sequence[TaskKey], *, now: datetime
) -> list[TaskView]:
    after = set(descendants(roots, tx.job_edges(job_key)))
    if not after:
        return []
    open_tasks = [
        task
        for task in tx.job_task_views(job_key)
        if task.task_key in after and task.state is TaskState.WAITING
    ]
    reason = "a task it comes after did not succeed"
    keys = [task.task_key for task in open_tasks]
    tx.set_task_states(keys, TaskState.SKIPPED, reason=reason, now=now)
    return open_tasks


def stop_live_job(tx: Transaction, job: JobView, *, stop_as: JobState, reason: str, now: datetime) -> None:
    """No new claims from here on; live attempts are asked to stop; nodes are woken to hear of it."""
    ended = tx.begin_stopping(job.job_key, stop_as=stop_as, reason=reason, now=now)
    running = tx.nodes_running(job.job_key)
    tx.wakes.nodes |= running
    tx.wakes.changed_nodes |= running
    tx.wakes.jobs.add(job.job_id)
    by_state: dict[TaskState, list[TaskKey]] = {}
    for key, state in ended.items():
        by_state.setdefault(state, []).append(key)
    stopping = Fact(
        kind=FactKind.JOB_STOPPING, tenant=job.tenant, job_key=job.job_key, payload={"reason": reason}
    )
    tasks = [
        Fact(kind=_TASK_FACTS[state], tenant=job.tenant, job_key=job.job_key, payload={"tasks": keys})
        for state, keys in by_state.items()
    ]
    tx.add_facts([stopping, *tasks], now=now)


def end_finished_jobs(tx: Transaction, keys: set[JobKey], *, now: datetime) -> None:
    """Ends those of the jobs that have no open task any more."""
    for job in tx.job_views(keys).values() if keys else ():
        if job.tasks_open or job.state.is_terminal:
            continue
        states = tx.first_task_by_state(job.job_key)
        state = decide_job_end(states, stop_as=job.stop_as)
        failed = states.get(TaskState.FAILED)
        reason = f"task {failed} failed" if failed is not None and job.stop_as is None else ""
        tx.end_job(job.job_key, state, reason=reason, now=now)
        tx.wakes.jobs.add(job.job_id)
        tx.wakes.ended_jobs.add(job.job_id)
        fact = Fact(kind=_JOB_FACTS[state], tenant=job.tenant, job_key=job.job_key)
        tx.add_facts([fact], now=now)
        if job.delete_when_done:
            remove_job(tx, job, now=now)


def remove_job(tx: Transaction, job: JobView, *, now: datetime) -> None:
    """Makes a terminal job a tombstone; its logs go after the commit."""
    tx.delete_job(job.job_key, now=now)
    tx.wakes.deleted_jobs.add(job.job_id)
    tx.wakes.jobs.add(job.job_id)
    tx.wakes.ended_jobs.add(job.job_id)
    fact = Fact(kind=FactKind.JOB_DELETED, tenant=job.tenant, job_key=job.job_key)
    tx.add_facts([fact], now=now)
