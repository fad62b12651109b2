"""Claim: a node gets work, whatever is first in its cluster's queue and would fit it."""

from datetime import datetime

from windlass_coordinator.core.records import ClaimableTask, Claimed, Fact, JobKey, NodeView
from windlass_coordinator.stores.base import Transaction
from windlass_proto import failpoints
from windlass_proto.model.facts import FactKind
from windlass_proto.model.ids import TaskKey
from windlass_proto.model.states import NodeState


def claim(tx: Transaction, node: NodeView, *, want: int, poll_seq: int, now: datetime) -> list[Claimed]:
    """Leases up to `want` instances to the node, retries before new ones, and starts their jobs."""
    if node.state is not NodeState.READY or want <= 0:
        return []
    taken: list[tuple[ClaimableTask, int, int]] = []
    left = want
    for task in tx.claimable(node, limit=want):
        again = min(left, task.ready_again)
        fresh = min(left - again, task.instance_count - task.next_index)
        taken.append((task, again, fresh))
        left -= again + fresh
        if not left:
            break
    if not taken:
        return []
    claimed = tx.claim(node, taken, poll_seq=poll_seq, now=now)
    if not claimed:
        return []
    _tell(tx, node, claimed, now=now)
    failpoints.reach("coord.claim.before_commit")
    return claimed


def _tell(tx: Transaction, node: NodeView, claimed: list[Claimed], *, now: datetime) -> None:
    by_job: dict[JobKey, dict[str, list[list[int]]]] = {}
    for c in claimed:
        by_job.setdefault(c.task.job_key, {})[str(c.task.task_key)] = _ranges(c.index)
    facts = [
        Fact(
            kind=FactKind.INSTANCES_CLAIMED,
            tenant=node.tenant,
            job_key=job_key,
            node_key=node.node_key,
            payload={"index": index},
        )
        for job_key, index in by_job.items()
    ]
    fresh: dict[JobKey, list[TaskKey]] = {}
    for c in claimed:
        if c.task.is_fresh:
            fresh.setdefault(c.task.job_key, []).append(c.task.task_key)
    facts += [
        Fact(kind=FactKind.TASK_STARTED, tenant=node.tenant, job_key=job_key, payload={"tasks": keys})
        for job_key, keys in fresh.items()
    ]
    waiting = {c.task.job_key for c in claimed if c.task.job_is_waiting}
    if waiting:
        tx.start_jobs(waiting, now=now)
        facts += [Fact(kind=FactKind.JOB_STARTED, tenant=node.tenant, job_key=key) for key in waiting]
    tx.add_facts(facts, now=now)
    tx.wakes.jobs |= {c.task.job_id for c in claimed}


def _ranges(indexes: tuple[int, ...]) -> list[list[int]]:
    """Runs of neighbours as [first, last]: a claim of 500 is one pair, not 500 numbers."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return runs
