"""Claim: a node gets work, whatever is first in its cluster's queue and would fit it."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from windlass_coordinator.core.records import ClaimableTask, Claimed, Fact, JobKey, NodeView
from windlass_coordinator.stores.base import Transaction
from windlass_proto import failpoints
from windlass_proto.model.facts import FactKind
from windlass_proto.model.ids import TaskKey
from windlass_proto.model.states import NodeState

_LOOKS = 4
"""Retries that avoid this node are seen only when they are claimed; what comes behind them is for it."""


def claim(tx: Transaction, node: NodeView, *, want: int, poll_seq: int, now: datetime) -> list[Claimed]:
    """Leases up to `want` instances to the node, retries before new ones, and starts their jobs."""
    if node.state is not NodeState.READY or want <= 0:
        return []
    claimed: list[Claimed] = []
    left = want
    avoiding: dict[TaskKey, int] = {}
    for _ in range(_LOOKS):
        taken, is_cut_short = _choose(tx, node, left, avoiding, free_gpus=_free_gpus(tx, node))
        got = tx.claim(node, taken, poll_seq=poll_seq, now=now) if taken else []
        claimed += got
        count = Counter({c.task.task_key: len(c.index) for c in got})
        left -= count.total()
        if not left:
            break
        short = {
            task.task_key: task.ready_again for task, *wanted in taken if count[task.task_key] < sum(wanted)
        }
        if short.keys() <= avoiding.keys() and not (is_cut_short and got):
            break
        avoiding |= short
    if not claimed:
        return []
    _tell(tx, node, claimed, now=now)
    failpoints.reach("coord.claim.before_commit")
    return claimed


def _free_gpus(tx: Transaction, node: NodeView) -> int:
    """Reserved by what it was given, not by what has started as slots are: nobody prefetches for a GPU."""
    if not node.capacity.gpus:
        return 0
    return max(0, node.capacity.gpus - tx.gpus_in_use(node.node_key))


def _choose(
    tx: Transaction, node: NodeView, want: int, avoiding: Mapping[TaskKey, int], *, free_gpus: int
) -> tuple[list[tuple[ClaimableTask, int, int]], bool]:
    """Tasks in their order, each with how many retries and how many new instances of it; and whether some
    got less as the GPUs ran out, so that what comes behind them may not have been seen."""
    taken, is_cut_short = [], False
    for task in tx.claimable(node, limit=want + sum(avoiding.values()), gpus=free_gpus):
        most = min(want, free_gpus // task.gpus) if task.gpus else want
        again = 0 if task.task_key in avoiding else min(most, task.ready_again)
        fresh = min(most - again, task.instance_count - task.next_index)
        if again or fresh:
            taken.append((task, again, fresh))
        is_cut_short = is_cut_short or most < want
        want -= again + fresh
        free_gpus -= task.gpus * (again + fresh)
        if not want:
            break
    return taken, is_cut_short


def look_again(tx: Transaction, node: NodeView) -> None:
    """Attempts of the node have ended: its poll may be parked since before their GPUs were free."""
    if node.capacity.gpus:
        tx.wakes.nodes.add(node.node_key)


def _tell(tx: Transaction, node: NodeView, claimed: list[Claimed], *, now: datetime) -> None:
    by_job: dict[JobKey, dict[str, list[list[int]]]] = {}
    for c in claimed:
        by_job.setdefault(c.task.job_key, {}).setdefault(str(c.task.task_key), []).extend(_ranges(c.index))
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
