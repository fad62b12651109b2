"""Which log files a task may have copied out."""

from typing import Any

import pytest

from windlass_proto.checks import check_job
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, InputMapping, JobSpec, LogMapping, OutputMapping, TaskSpec

TO = "oss://b/logs/"


def problems(*logs: tuple[str, str], **more: Any) -> list[str]:
    mappings = tuple(LogMapping(source=source, destination=destination) for source, destination in logs)
    task = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)), logs=mappings, **more)
    return [str(problem) for problem in check_job(JobSpec(name="j", tasks=(task,)))]


def test_files_of_the_work_directory_and_of_mapped_directories_may_be_copied_out() -> None:
    outputs = (OutputMapping(source="/data/out", destination="oss://b/out/"),)
    inputs = (InputMapping(source="oss://b/in/", destination="/data/in"),)
    logs = (("run.log", TO), ("deep/er.log", f"{TO}er.txt"), ("/data/out/a.log", TO), ("/data/in/b.log", TO))
    assert problems(*logs, outputs=outputs, inputs=inputs) == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "must be a file, such as run.log (is '')"),
        ("logs/", "must be a file, such as run.log (is 'logs/')"),
        ("../a", "must not contain '..' (is '../a')"),
        ("/etc/shadow", "must be relative to the work directory"),
        ("/data/output.log", "must be relative to the work directory"),
        ("a\nb", "must hold printable characters only"),
    ],
)
def test_other_files_are_refused_by_name(source: str, says: str) -> None:
    outputs = (OutputMapping(source="/data/out", destination="oss://b/out/"),)
    (problem,) = problems((source, TO), outputs=outputs)
    assert problem.startswith("tasks.t.logs[0].source: ")
    assert says in problem


def test_a_target_must_be_an_object_url() -> None:
    (problem,) = problems(("a.log", "nfs://host:/logs/"))
    assert problem.startswith("tasks.t.logs[0].destination: ")


def test_two_log_files_must_not_become_one_object() -> None:
    (problem,) = problems(("one/a.log", TO), ("two/a.log", TO))
    assert problem == (
        "tasks.t.logs[1].destination: must be another one:"
        " 'oss://b/logs/a.log' is the log file 'one/a.log' already"
    )


def test_there_may_not_be_any_number_of_them() -> None:
    many = [(f"{number}.log", TO) for number in range(101)]
    assert problems(*many) == ["tasks.t.logs: must be at most 100 (are 101)"]
