"""Rows of the tables as values, and values as rows: the same on every SQL database."""

import json
from collections.abc import Sequence
from typing import Any

from windlass_coordinator.core.records import (
    AttemptView,
    ClaimableTask,
    Claimed,
    ClusterKey,
    JobKey,
    JobView,
    NodeView,
    TaskView,
)
from windlass_coordinator.stores.base import AttemptEnd, NewJob
from windlass_coordinator.stores.sql.times import from_us_or_none
from windlass_proto.model.events import Exited
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, NodeId, TaskKey, TaskName
from windlass_proto.model.resources import NodeCapacity
from windlass_proto.model.specs import TaskSpec, task_to_json
from windlass_proto.model.states import AttemptState, JobState, NodeState, TaskState

TASK_COLUMNS = (
    "task_key, job_key, name, state, cluster_key, instance_count, next_index, ready_again, active, "
    "retry_wait, succeeded, failed, stopped, max_retries"
)


JOB_COLUMNS = (
    "job_key, job_id, tenant, state, stop_as, fail_fast, generation, priority, tasks_open, delete_when_done"
)


_INFRA_KINDS = ", ".join(f"'{kind}'" for kind in FailureKind if not kind.spends_user_budget)


def taken_down(task_key: str, index: str, attempt: str, last: str) -> str:
    """The query for `WorkRecords.nodes_taken_down`, with the placeholders of its values. All that spent the
    infrastructure's budget counts for `last`, so that none of an earlier generation is looked at."""
    return f"""
SELECT count(DISTINCT node_key) FROM (
  SELECT node_key, attempt, failure FROM attempts WHERE task_key = {task_key} AND idx = {index}
    AND (attempt = {attempt} OR failure IN ({_INFRA_KINDS}))
  ORDER BY attempt DESC LIMIT {last}) last
WHERE attempt = {attempt} OR failure IN ('INFRA_NODE_LOST', 'INFRA_KEEPER_LOST')"""


# Not with an end of a drain: there its session was ended, and what the node has comes with the next.
OUTPUT_IS_GIVEN_UP = (
    "(n.state IN ('GONE', 'DELETED') OR (a.epoch < n.epoch AND n.nonce <> '' AND n.drain_by IS NULL))"
)
"""Of an ended attempt `a` of node `n`: whether output that has not arrived never will. A node that opens a
session names what it has, and that goes on in its new epoch; a restored database has no nonces, and must hear
its nodes first."""


# Looked up, not called: a hot verb makes a thousand of them.
_TASK_STATES = {state.value: state for state in TaskState}
_ATTEMPT_STATES = {state.value: state for state in AttemptState}


# Made once: `json.dumps` with separators of its own makes an encoder for each call.
to_json = json.JSONEncoder(separators=(",", ":")).encode


# Rows are untyped: the drivers know no column types. Each function names the columns it takes.


def task_view(row: Any) -> TaskView:
    """From a row of TASK_COLUMNS."""
    return TaskView(
        task_key=row[0],
        job_key=JobKey(row[1]),
        name=TaskName(row[2]),
        state=_TASK_STATES[row[3]],
        cluster_key=ClusterKey(row[4]),
        instance_count=row[5],
        next_index=row[6],
        ready_again=row[7],
        active=row[8],
        retry_wait=row[9],
        succeeded=row[10],
        failed=row[11],
        stopped=row[12],
        max_retries=row[13],
    )


def attempt_view(row: Any) -> AttemptView:
    return AttemptView(
        attempt=row[1],
        fence=row[2],
        state=_ATTEMPT_STATES[row[3]],
        node_key=row[4],
        failure=None if row[5] is None else FailureKind(row[5]),
        exit_code=row[6],
        exit_signal=row[7],
    )


def attempt_key(ref: AttemptRef) -> tuple[int, int, int, int]:
    return (ref.task_key, ref.index, ref.attempt, ref.fence)


_NO_EXIT = (None,) * 8


def exit_fields(what: Exited | None) -> tuple[int | None, ...]:
    if what is None:
        return _NO_EXIT
    return (
        what.code,
        what.signal,
        what.ran_for_us,
        what.user_cpu_us,
        what.system_cpu_us,
        what.peak_memory_bytes,
        what.stdout_end,
        what.stderr_end,
    )


def end_fields(end: AttemptEnd) -> tuple[int | None, ...]:
    if end.log_ends is None:
        return exit_fields(end.exit)
    return (*_NO_EXIT[:-2], *end.log_ends)


def count_by_task(instances: Sequence[tuple[TaskKey, int]]) -> dict[TaskKey, int]:
    counts: dict[TaskKey, int] = {}
    for task_key, _ in instances:
        counts[task_key] = counts.get(task_key, 0) + 1
    return counts


def job_view_of(row: Any) -> JobView:
    return JobView(
        job_key=row[0],
        job_id=row[1],
        tenant=row[2],
        state=JobState(row[3]),
        stop_as=None if row[4] is None else JobState(row[4]),
        fail_fast=bool(row[5]),
        generation=row[6],
        priority=row[7],
        tasks_open=row[8],
        delete_when_done=bool(row[9]),
    )


def task_row(
    task: TaskSpec, job_key: JobKey, position: int, job: NewJob, *, blocked_by: int
) -> tuple[object, ...]:
    needs = task.resources
    return (
        job_key,
        TaskName(task.name),
        position,
        TaskState.WAITING if blocked_by else TaskState.READY,
        job.clusters[task.cluster],
        job.spec.priority,
        not blocked_by,
        task.instances,
        blocked_by,
        task.max_retries,
        needs.cpu,
        needs.memory_bytes,
        needs.slots,
        needs.gpus,
        task_to_json(task),
    )


def node_view_of(row: Any) -> NodeView:
    return NodeView(
        node_key=row[0],
        node_id=NodeId(row[1]),
        name=row[2],
        tenant=row[3],
        cluster=row[4],
        cluster_key=row[5],
        state=NodeState(row[6]),
        state_id=row[7],
        boot_id=row[8],
        epoch=row[9],
        nonce=row[10],
        last_nonce=row[11],
        capacity=NodeCapacity(cpu=row[12], memory_bytes=row[13], slots=row[14], gpus=row[19]),
        wish=NodeState(row[15]) if row[15] else None,
        reason=row[16],
        drain_by=from_us_or_none(row[17]),
        prepare_failed_jobs=frozenset(JobKey(int(key)) for key in row[18].split()),
    )


def claimed_again(rows: list[Any], node: NodeView) -> Claimed:
    task_key, job_key, job_id, name, count, spec = rows[0][:6]
    task = ClaimableTask(
        task_key=task_key,
        job_key=job_key,
        job_id=job_id,
        name=name,
        instance_count=count,
        next_index=0,
        ready_again=0,
        gpus=0,
        spec=spec,
        cluster=node.cluster,
        job_is_waiting=False,
        is_fresh=False,
    )
    index, attempt, fence = zip(*[row[6:9] for row in rows], strict=True)
    return Claimed(task=task, index=index, attempt=attempt, fence=fence)
