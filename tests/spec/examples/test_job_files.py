"""The job files of the examples say what they are meant to say."""

from dataclasses import replace
from pathlib import Path

import pytest

from windlass.jobfile import PlannedJob, plan_job, read_job_file

EXAMPLES = Path(__file__).parents[3] / "examples"


def planned(name: str) -> PlannedJob:
    return plan_job(read_job_file(EXAMPLES / name))


@pytest.mark.parametrize(
    ("name", "count_instances"),
    [("log-count/job.yaml", 3), ("log-count/job.cfg", 3), ("word-count/job.yaml", 4)],
)
def test_each_example_splits_then_counts_side_by_side_then_merges(name: str, count_instances: int) -> None:
    job = planned(name)
    assert job.notes == ()
    assert [(task.name, task.instances, task.after) for task in job.spec.tasks] == [
        ("split", 1, ()),
        ("count", count_instances, ("split",)),
        ("merge", 1, ("count",)),
    ]


@pytest.mark.parametrize("name", ["log-count/job.yaml", "log-count/job.cfg", "word-count/job.yaml"])
def test_every_task_gets_the_program_and_the_data_of_the_job(name: str) -> None:
    job = planned(name)
    store = f"oss://windlass/{job.spec.name}/"
    for task in job.spec.tasks:
        assert job.packages[task.name] == ((EXAMPLES / name).parent / "program",)
        assert [(taken.source, taken.destination) for taken in task.inputs] == [(store, "input/")]
        assert [(given.source, given.destination) for given in task.outputs] == [("output/", store)]


def test_both_job_files_of_the_log_count_make_the_same_job_but_for_retries_and_log_targets() -> None:
    native, cfg = planned("log-count/job.yaml").spec, planned("log-count/job.cfg").spec
    alike = tuple(replace(task, max_retries=0, stdout="", stderr="") for task in native.tasks)
    assert replace(native, tasks=alike) == cfg
