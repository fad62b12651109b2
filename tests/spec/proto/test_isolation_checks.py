"""What a task may ask of a node's isolation and limits, and how what it may not is told."""

from dataclasses import replace

import pytest

from windlass_proto.checks import check_job
from windlass_proto.model.ids import TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import Argv, Container, Isolation, JobSpec, TaskSpec

_TASK = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)))


def problems(task: TaskSpec) -> list[str]:
    return [str(problem) for problem in check_job(JobSpec(name="j", tasks=(task,)))]


@pytest.mark.parametrize("isolation", Isolation)
def test_every_isolation_may_be_asked_for(isolation: Isolation) -> None:
    assert problems(replace(_TASK, isolation=isolation)) == []


def test_a_container_is_isolated_by_its_runtime() -> None:
    task = replace(_TASK, isolation=Isolation.STRICT, container=Container(image="debian:12"))
    assert problems(task) == [
        "tasks.t.isolation: must not be given with container, whose runtime isolates it; leave it out"
    ]


@pytest.mark.parametrize("resources", [Resources(pids=1, open_files=16), Resources(pids=4_194_304)])
def test_limits_of_processes_and_files_may_be_asked_for(resources: Resources) -> None:
    assert problems(replace(_TASK, resources=resources)) == []


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        (Resources(pids=-1), "pids: must be >= 0 (is -1)"),
        (Resources(pids=1 << 40), "pids: must be <= 4194304 (is 1099511627776)"),
        (Resources(open_files=1 << 21), "open_files: must be <= 1048576 (is 2097152)"),
        (
            Resources(open_files=3),
            "open_files: must be at least 16, or 0 for the node's own limit (is 3): programs would not start",
        ),
    ],
)
def test_limits_that_cannot_be_are_refused(resources: Resources, problem: str) -> None:
    assert problems(replace(_TASK, resources=resources)) == [f"tasks.t.resources.{problem}"]
