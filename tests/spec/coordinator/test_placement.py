"""Why an instance waits, in words for its user."""

import pytest

from windlass_coordinator.core.placement import why_it_waits
from windlass_coordinator.core.records import WaitingTask
from windlass_proto.model.ids import ClusterName, TaskName
from windlass_proto.model.resources import NodeCapacity, Resources

GIB = 1 << 30
SMALL = NodeCapacity(cpu=8, memory_bytes=16 * GIB, slots=4, gpus=2)
TALL = NodeCapacity(cpu=64, memory_bytes=8 * GIB, slots=1)


def waits(*sizes: NodeCapacity, **needs: float) -> str:
    task = WaitingTask(
        name=TaskName("t"),
        cluster=ClusterName("blue"),
        needs=Resources(**needs),  # type: ignore[arg-type]  # whole numbers where they must be
        sizes=sizes,
    )
    return why_it_waits(task)


def test_what_fits_an_idle_node_only_has_to_wait_for_its_turn() -> None:
    assert waits(SMALL, gpus=2) == ""
    assert waits(TALL, SMALL, cpu=64) == ""


def test_a_cluster_without_nodes_is_named() -> None:
    assert waits() == "waits: no node of cluster blue takes work now"


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"gpus": 4}, "4 GPUs (largest: 2)"),
        ({"slots": 5}, "5 slots (largest: 4)"),
        ({"cpu": 65.5}, "65.5 cores (largest: 64)"),
        ({"memory_bytes": 40 * GIB}, "40 GiB memory (largest: 16 GiB)"),
        ({"gpus": 3, "slots": 9}, "3 GPUs (largest: 2) or 9 slots (largest: 4)"),
    ],
)
def test_what_no_node_has_enough_of_is_named_with_the_largest(needs: dict[str, float], said: str) -> None:
    assert waits(SMALL, TALL, **needs) == f"waits: no node of cluster blue has {said}"


def test_what_some_have_and_none_has_together_is_named_together() -> None:
    said = waits(SMALL, TALL, gpus=1, cpu=32, memory_bytes=GIB // 2)
    assert said == "waits: no node of cluster blue has 1 GPU, 32 cores, 0.5 GiB memory at once"
