"""DAGs of tasks against the plainest possible answers."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import a_job, a_task, exits, told
from tests.support.coordinator import InMemoryCoordinator
from tests.support.examples import examples
from windlass_coordinator.core.job_lifecycle import decide_job_end, decide_task_end
from windlass_coordinator.core.records import ClusterKey, JobKey, TaskBump, TaskView
from windlass_coordinator.core.task_graph import count_blockers, descendants
from windlass_proto.model.ids import TaskKey, TaskName
from windlass_proto.model.states import InstanceState, JobState, TaskState

Graph = Mapping[int, Sequence[int]]
edges = st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20)


@examples(200)
@given(edges, st.sets(st.integers(0, 7)))
def test_descendants_are_all_that_can_be_reached_each_once(
    steps: set[tuple[int, int]], roots: set[int]
) -> None:
    children: dict[int, list[int]] = {}
    for parent, child in steps:
        children.setdefault(parent, []).append(child)
    reached: set[int] = set()
    for _ in range(8):
        reached |= {child for parent, child in steps if parent in roots | reached}
    found = descendants(roots, children)
    assert len(found) == len(set(found))
    assert set(found) == reached


@st.composite
def dags(draw: st.DrawFn) -> list[list[int]]:
    """For each task the earlier ones that it comes after."""
    return [
        sorted(draw(st.sets(st.integers(0, number - 1), max_size=3))) if number else []
        for number in range(draw(st.integers(1, 6)))
    ]


@examples(50)
@given(dags())
def test_a_task_waits_for_each_parent_once(parents: list[list[int]]) -> None:
    tasks = [a_task(f"t{n}", after=[f"t{p}" for p in before]) for n, before in enumerate(parents)]
    assert count_blockers(tasks) == {f"t{n}": len(before) for n, before in enumerate(parents)}


counted = st.lists(st.sampled_from(InstanceState), max_size=6)


@examples(300)
@given(counted, st.sampled_from([TaskState.RUNNING, TaskState.STOPPING]), st.data())
def test_a_task_ends_when_nothing_of_it_can_change_any_more(
    instances: list[InstanceState], state: TaskState, data: st.DataObject
) -> None:
    """The same instances as counters and as a list; some of what happened is still in the bump."""
    I = InstanceState  # noqa: E741, N806  (a table is to be read)
    n = {one: instances.count(one) for one in I}
    late = {
        name: data.draw(st.integers(-2, 2), label=name)
        for name in ("active", "succeeded", "failed", "stopped")
    }
    active = n[I.ACTIVE] + n[I.STOPPING]
    view = TaskView(
        task_key=TaskKey(1),
        job_key=JobKey(1),
        name=TaskName("t"),
        state=state,
        cluster_key=ClusterKey(1),
        instance_count=len(instances),
        next_index=len(instances),
        ready_again=n[I.READY],
        active=active - late["active"],
        retry_wait=n[I.RETRY_WAIT],
        succeeded=n[I.SUCCEEDED] - late["succeeded"],
        failed=n[I.FAILED] - late["failed"],
        stopped=n[I.STOPPED] - late["stopped"],
        max_retries=0,
    )
    end = decide_task_end(view, TaskBump(**late))
    if state is TaskState.STOPPING:
        # What is not active will never be claimed.
        expected = None if active else (TaskState.FAILED if n[I.FAILED] else TaskState.STOPPED)
    elif any(not one.is_terminal for one in instances):
        expected = None
    elif n[I.FAILED]:
        expected = TaskState.FAILED
    else:
        expected = TaskState.STOPPED if n[I.STOPPED] else TaskState.SUCCEEDED
    assert end == expected


def test_a_job_ends_as_the_worst_of_its_tasks_whatever_their_order() -> None:
    terminal = [state for state in TaskState if state.is_terminal]
    for size in range(1, len(terminal) + 1):
        for states in combinations(terminal, size):
            expected = (
                JobState.FAILED
                if TaskState.FAILED in states
                else JobState.SUCCEEDED
                if set(states) == {TaskState.SUCCEEDED}
                else JobState.STOPPED
            )
            assert (
                decide_job_end(states, stop_as=None) == decide_job_end(states[::-1], stop_as=None) == expected
            )
            assert decide_job_end(states, stop_as=JobState.STOPPED) is JobState.STOPPED


@examples(12)
@given(dags(), st.data())
def test_a_job_ends_as_a_reader_of_its_graph_would_say(parents: list[list[int]], data: st.DataObject) -> None:
    """The verbs themselves: which tasks run, which are skipped, and how the whole ends."""
    codes = [data.draw(st.sampled_from([0, 0, 0, 7]), label=f"t{n}") for n in range(len(parents))]
    expected: dict[str, TaskState] = {}
    for number, before in enumerate(parents):
        blocked = any(expected[f"t{parent}"] is not TaskState.SUCCEEDED for parent in before)
        failed = TaskState.FAILED if codes[number] else TaskState.SUCCEEDED
        expected[f"t{number}"] = TaskState.SKIPPED if blocked else failed
    with InMemoryCoordinator() as coordinator:
        job = coordinator.submit(
            a_job(
                *(
                    a_task(f"t{n}", after=[f"t{p}" for p in before], instances=2)
                    for n, before in enumerate(parents)
                ),
                fail_on_instance_failure=False,
            )
        )
        names = {key: int(name[1:]) for key, name in coordinator.rows("SELECT task_key, name FROM tasks")}
        node = coordinator.node()
        while refs := coordinator.claim(node, want=data.draw(st.integers(1, 5), label="want")):
            order = data.draw(st.permutations(refs), label="order")
            coordinator.report_all(node, [told(ref, exits(codes[names[ref.task_key]])) for ref in order])
        assert coordinator.task_states(job) == expected
        is_good = set(expected.values()) == {TaskState.SUCCEEDED}
        assert coordinator.state(job) is (JobState.SUCCEEDED if is_good else JobState.FAILED)
