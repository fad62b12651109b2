"""Why no node of a cluster can take an instance, in words for its user."""

from collections.abc import Iterator, Sequence

from windlass_coordinator.core.records import WaitingTask
from windlass_proto.model.resources import NodeCapacity, Resources

_GIB = 1 << 30


def why_it_waits(task: WaitingTask) -> str:
    """ "" when some node could take it, were it idle; it only has to become free then."""
    if not task.sizes:
        return f"waits: no node of cluster {task.cluster} takes work now"
    if any(size.could_ever_fit(task.needs) for size in task.sizes):
        return ""
    lacking = list(_lacking(task.needs, task.sizes))
    what = " or ".join(lacking) if lacking else f"{_all_of(task.needs)} at once"
    return f"waits: no node of cluster {task.cluster} has {what}"


def _lacking(needs: Resources, sizes: Sequence[NodeCapacity]) -> Iterator[str]:
    """What no node has enough of, whatever else it has."""
    if needs.gpus > (most := max(size.gpus for size in sizes)):
        yield f"{_counted(needs.gpus, 'GPU')} (largest: {most})"
    if needs.slots > (most := max(size.slots for size in sizes)):
        yield f"{_counted(needs.slots, 'slot')} (largest: {most})"
    if needs.cpu > (cores := max(size.cpu for size in sizes)):
        yield f"{_counted(needs.cpu, 'core')} (largest: {cores:g})"
    if needs.memory_bytes > (most := max(size.memory_bytes for size in sizes)):
        yield f"{_memory(needs.memory_bytes)} memory (largest: {_memory(most)})"


def _all_of(needs: Resources) -> str:
    parts = [
        _counted(needs.gpus, "GPU") if needs.gpus else "",
        _counted(needs.slots, "slot") if needs.slots > 1 else "",
        _counted(needs.cpu, "core") if needs.cpu else "",
        f"{_memory(needs.memory_bytes)} memory" if needs.memory_bytes else "",
    ]
    return ", ".join(part for part in parts if part)


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def _memory(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.4g} GiB"
