"""A job's specification crosses the wire unchanged, and what is left out gets its default."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass_proto.convert import job_spec_from_wire, job_spec_to_wire
from windlass_proto.model.ids import ClusterName, TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import (
    Argv,
    InputMapping,
    JobSpec,
    OutputMapping,
    ShellLine,
    TaskSpec,
)
from windlass_proto.v1 import specs_pb2

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
int64 = st.integers(-(2**63), 2**63 - 1)
tasks = st.builds(
    TaskSpec,
    name=texts.map(TaskName),
    command=st.builds(Argv, args=st.lists(texts, max_size=3).map(tuple)) | st.builds(ShellLine, line=texts),
    after=st.lists(texts.map(TaskName), max_size=2).map(tuple),
    instances=int64,
    package=texts,
    env=st.dictionaries(texts, texts, max_size=2),
    timeout=st.none() | st.timedeltas(timedelta(days=-400), timedelta(days=400)),
    max_retries=int64,
    resources=st.builds(Resources, cpu=st.floats(allow_nan=False), memory_bytes=int64, slots=int64),
    cluster=st.text("abc", min_size=1, max_size=3).map(ClusterName),
    stdout=texts,
    stderr=texts,
    inputs=st.lists(st.builds(InputMapping, source=texts, destination=texts), max_size=2).map(tuple),
    outputs=st.lists(st.builds(OutputMapping, source=texts, destination=texts), max_size=2).map(tuple),
)
jobs = st.builds(
    JobSpec,
    name=texts,
    tasks=st.lists(tasks, max_size=2).map(tuple),
    description=texts,
    priority=int64,
    fail_on_instance_failure=st.booleans(),
)


@given(jobs)
def test_every_job_arrives_as_it_was_sent(job: JobSpec) -> None:
    sent = job_spec_to_wire(job).SerializeToString()
    assert job_spec_from_wire(specs_pb2.JobSpec.FromString(sent)) == job


def test_what_a_message_leaves_out_gets_the_models_default() -> None:
    message = specs_pb2.JobSpec(name="j", tasks=[specs_pb2.TaskSpec(name="t", command={"shell": "true"})])
    assert job_spec_from_wire(message) == JobSpec(
        name="j", tasks=(TaskSpec(name=TaskName("t"), command=ShellLine(line="true")),)
    )


def test_a_command_that_is_not_given_becomes_an_empty_one_for_the_checks_to_name() -> None:
    job = job_spec_from_wire(specs_pb2.JobSpec(tasks=[specs_pb2.TaskSpec(name="t")]))
    assert job.tasks[0].command == Argv(args=())


def test_zero_that_was_given_is_not_taken_for_not_given() -> None:
    message = specs_pb2.TaskSpec(name="t", instances=0, resources=specs_pb2.Resources(slots=0))
    task = job_spec_from_wire(specs_pb2.JobSpec(fail_on_instance_failure=False, tasks=[message])).tasks[0]
    assert (task.instances, task.resources.slots) == (0, 0)


@pytest.mark.parametrize(("seconds", "becomes"), [(2**62, timedelta.max), (-(2**62), timedelta.min)])
def test_a_timeout_beyond_all_bounds_stays_beyond_them(seconds: int, becomes: timedelta) -> None:
    message = specs_pb2.JobSpec(tasks=[specs_pb2.TaskSpec(timeout={"seconds": seconds})])
    assert job_spec_from_wire(message).tasks[0].timeout == becomes
