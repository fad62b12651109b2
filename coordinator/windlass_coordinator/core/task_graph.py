"""The DAG of a job's tasks: who waits for whom."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import TaskSpec

K = TypeVar("K")


def count_blockers(tasks: Sequence[TaskSpec]) -> dict[TaskName, int]:
    """How many tasks each task waits for; 0 = it may start at once."""
    return {task.name: len(set(task.after)) for task in tasks}


def descendants(roots: Iterable[K], children: Mapping[K, Sequence[K]]) -> list[K]:
    """All that come after `roots`, directly or not, each once, nearest first; without the roots."""
    seen: set[K] = set()
    waiting = deque(child for root in roots for child in children.get(root, ()))
    found: list[K] = []
    while waiting:
        key = waiting.popleft()
        if key in seen:
            continue
        seen.add(key)
        found.append(key)
        waiting.extend(children.get(key, ()))
    return found
