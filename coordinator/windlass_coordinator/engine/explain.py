"""Explain: a job's status for somebody who looks at it, with why what waits cannot start.

Worked out when it is asked for, from the sizes of the nodes at that moment; nothing of it is stored.
"""

from collections.abc import Sequence
from dataclasses import replace

from windlass_coordinator.core.placement import why_it_waits
from windlass_coordinator.core.records import WaitingTask
from windlass_proto.model.status import JobStatus


def is_to_explain(status: JobStatus) -> bool:
    """Whether something of it waits for a node and nothing of the same task has one."""
    return any(task.counts.ready and not task.counts.active for task in status.tasks)


def explain(status: JobStatus, waiting: Sequence[WaitingTask]) -> JobStatus:
    why = {task.name: reason for task in waiting if (reason := why_it_waits(task))}
    if not why:
        return status
    tasks = tuple(replace(task, reason=task.reason or why.get(task.name, "")) for task in status.tasks)
    is_still = not any(task.counts.active for task in tasks)
    first = next(iter(why.items()))
    reason = status.reason or (f"{first[0]} {first[1]}" if is_still else "")
    return replace(status, tasks=tasks, reason=reason)
