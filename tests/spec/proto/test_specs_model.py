"""Specifications: stored and read they are the same; checked, whatever they hold, they are never a crash."""

import json
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.generated import values
from windlass_proto import convert
from windlass_proto.checks import DEFAULT_LIMITS, SpecLimits, check_job
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, JobSpec, ShellLine, TaskSpec, task_from_json, task_to_json

tasks = values(TaskSpec)

WILD_TEXT = st.one_of(
    st.text(max_size=6),  # with halves of surrogate pairs
    st.sampled_from(
        ["", "..", "/", "\0", "\n", "\u202e", "x" * 10_001, "oss://", "oss://b/../", "t0", "t1", "-"]
    ),
)
WILD_NUMBER = st.one_of(
    st.integers(), st.sampled_from([0, -1, 2**31, 2**63, 2**64, -(2**63)]), st.floats(allow_nan=True)
)
WILD_DURATION = st.one_of(st.timedeltas(), st.sampled_from([timedelta.max, timedelta.min, timedelta(0)]))


@st.composite
def wild_tasks(draw: st.DrawFn) -> TaskSpec:
    """A task like any other, with a few fields that hold what they should not."""
    task = draw(tasks)
    wild: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from([field.name for field in fields(TaskSpec)]), max_size=4)):
        match getattr(task, name):
            case bool():
                continue
            case str():
                wild[name] = draw(WILD_TEXT)
            case int() | float():
                wild[name] = draw(WILD_NUMBER)
            case timedelta():
                wild[name] = draw(WILD_DURATION)
    wild["after"] = tuple(draw(st.lists(WILD_TEXT, max_size=4)))
    wild["env"] = draw(st.dictionaries(WILD_TEXT, WILD_TEXT, max_size=3))
    wild["command"] = draw(
        st.builds(ShellLine, line=WILD_TEXT)
        | st.builds(Argv, args=st.lists(WILD_TEXT, max_size=3).map(tuple))
    )
    needs = {
        name: draw(WILD_NUMBER) for name in draw(st.sets(st.sampled_from(["cpu", "memory_bytes", "slots"])))
    }
    return replace(task, **wild, resources=replace(task.resources, **needs))


@examples(60)
@given(tasks)
def test_a_task_that_is_stored_is_read_as_it_was(task: TaskSpec) -> None:
    assert task_from_json(task_to_json(task)) == task


@examples(60)
@given(tasks)
def test_what_is_read_and_stored_again_has_the_same_bytes(task: TaskSpec) -> None:
    stored = task_to_json(task)
    assert task_to_json(task_from_json(stored)) == stored


@examples(30)
@given(tasks, st.text(min_size=1, max_size=8))
def test_a_field_of_a_newer_version_is_refused_not_dropped(task: TaskSpec, name: str) -> None:
    if name in {field.name for field in fields(TaskSpec)}:
        return
    document = json.loads(task_to_json(task)) | {name: 1}
    with pytest.raises(ValueError, match="unknown keys"):
        task_from_json(json.dumps(document).encode())


@examples(80)
@given(st.lists(wild_tasks(), max_size=3).map(tuple), WILD_TEXT, WILD_TEXT, WILD_NUMBER)
def test_a_wild_specification_is_answered_with_problems_and_never_crashes(
    some: tuple[TaskSpec, ...], name: str, description: str, priority: Any
) -> None:
    spec = JobSpec(name=name, tasks=some, description=description, priority=priority)
    for problem in check_job(spec, DEFAULT_LIMITS):
        assert problem.message
        # What it quotes is printable, so that a person may read it in a terminal.
        assert str(problem).isprintable(), repr(str(problem))


@examples(60)
@given(wild_tasks(), st.sets(st.sampled_from([field.name for field in fields(TaskSpec)]), max_size=2))
def test_what_is_found_good_can_be_stored_and_sent(wild: TaskSpec, odd: set[str]) -> None:
    plain = TaskSpec(name=TaskName("task"), command=Argv(args=("true",)))
    task = replace(plain, **{name: getattr(wild, name) for name in odd})
    spec = JobSpec(name="job", tasks=(task,))
    if not check_job(spec, DEFAULT_LIMITS):
        assert convert.job_spec_from_wire(convert.job_spec_to_wire(spec)) == spec
        assert task_from_json(task_to_json(task)) == task


@st.composite
def orders(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Names, and what each comes after: any directed graph, cycles and unknown names included."""
    names = [f"t{number}" for number in range(draw(st.integers(1, 6)))]
    other = st.sampled_from([*names, "nobody"])
    return {name: tuple(draw(st.lists(other, max_size=3, unique=True))) for name in names}


def can_all_run(after: dict[str, tuple[str, ...]]) -> bool:
    """By brute force: run whatever has nothing left to wait for, until nothing changes."""
    done: set[str] = set()
    while True:
        ready = {name for name, parents in after.items() if name not in done and set(parents) <= done}
        if not ready:
            return len(done) == len(after)
        done |= ready


@examples(150)
@given(orders())
def test_an_order_is_found_good_exactly_when_every_task_can_run(after: dict[str, tuple[str, ...]]) -> None:
    spec = JobSpec(
        name="job",
        tasks=tuple(
            TaskSpec(name=TaskName(name), command=Argv(args=("true",)), after=tuple(map(TaskName, parents)))
            for name, parents in after.items()
        ),
    )
    assert (check_job(spec) == []) == can_all_run(after)


@examples(30)
@given(st.integers(0, 200), st.integers(1, 200))
def test_the_number_of_tasks_has_its_named_limit(most: int, count: int) -> None:
    spec = JobSpec(
        name="job",
        tasks=tuple(
            TaskSpec(name=TaskName(f"t{number}"), command=Argv(args=("true",))) for number in range(count)
        ),
    )
    assert bool(check_job(spec, SpecLimits(tasks=most))) == (count > most)
