"""When a task and a job end, and as what (protocol.md, section 3)."""

from collections.abc import Iterable

from windlass_coordinator.core.records import TaskBump, TaskView
from windlass_proto.model.states import JobState, TaskState


def decide_task_end(task: TaskView, bump: TaskBump) -> TaskState | None:
    """The state in which a task ends by its counters after `bump`; None while it goes on."""
    failed, stopped = task.failed + bump.failed, task.stopped + bump.stopped
    if task.state is TaskState.STOPPING:
        if task.active + bump.active:
            return None
        return TaskState.FAILED if failed else TaskState.STOPPED
    if task.succeeded + bump.succeeded + failed + stopped < task.instance_count:
        return None
    if failed:
        return TaskState.FAILED
    return TaskState.STOPPED if stopped else TaskState.SUCCEEDED


def decide_job_end(task_states: Iterable[TaskState], *, stop_as: JobState | None) -> JobState:
    """The state in which a job ends when all its tasks are terminal."""
    if stop_as is not None:
        return stop_as
    states = set(task_states)
    if TaskState.FAILED in states:
        return JobState.FAILED
    if states & {TaskState.STOPPED, TaskState.SKIPPED}:
        return JobState.STOPPED
    return JobState.SUCCEEDED
