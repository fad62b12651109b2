"""Attempts of a silent node, from rows that carry their task's specification."""

from collections.abc import Sequence
from typing import Any

from windlass_coordinator.core.records import DetachedAttempt, HeldAttempt
from windlass_proto.model.ids import Fence, TaskKey
from windlass_proto.model.specs import TaskSpec, task_from_json
from windlass_proto.model.states import AttemptState


def detached_from_rows(rows: Sequence[Any]) -> list[DetachedAttempt]:
    """From (task_key, idx, attempt, fence, state, spec); untyped as drivers know no column types."""
    # Rare, and few tasks: reading the policy from the specification saves the hot tables two columns.
    specs: dict[int, TaskSpec] = {}
    detached = []
    for task_key, index, attempt, fence, state, spec in rows:
        if task_key not in specs:
            specs[task_key] = task_from_json(bytes(spec))
        held = HeldAttempt(
            task_key=TaskKey(task_key),
            index=index,
            attempt=attempt,
            fence=Fence(fence),
            state=AttemptState(state),
        )
        detached.append(
            DetachedAttempt(
                held=held,
                disconnect=specs[task_key].disconnect,
                outlives_lease_for=specs[task_key].outlives_lease_for,
            )
        )
    return detached
