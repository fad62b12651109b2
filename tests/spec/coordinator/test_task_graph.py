"""Who waits for whom."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import a_task
from windlass_coordinator.core.task_graph import count_blockers, descendants

DIAMOND = {"split": ["left", "right"], "left": ["merge"], "right": ["merge"]}


def test_a_task_is_blocked_by_each_of_its_parents_once() -> None:
    tasks = [a_task("a"), a_task("b"), a_task("c", after=("a", "b", "a"))]

    assert count_blockers(tasks) == {"a": 0, "b": 0, "c": 2}


def test_descendants_come_nearest_first_and_once_each() -> None:
    assert descendants(["split"], DIAMOND) == ["left", "right", "merge"]


def test_a_leaf_has_no_descendants() -> None:
    assert descendants(["merge"], DIAMOND) == []


def test_a_root_below_another_root_counts_as_its_descendant() -> None:
    assert descendants(["split", "left"], DIAMOND) == ["left", "right", "merge"]


@given(st.integers(1, 300))
def test_a_long_chain_is_no_deeper_than_the_stack(length: int) -> None:
    chain = {step: [step + 1] for step in range(length)}

    assert descendants([0], chain) == list(range(1, length + 1))
