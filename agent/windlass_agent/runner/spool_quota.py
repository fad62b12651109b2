"""How much output may lie on the node: each slot has an equal share of what ended attempts leave of it.

The keepers, who write, cannot see each other; a share each needs no lock and no file between them. What lies
there for attempts that have ended is taken from all shares until the coordinator has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windlass_agent.core.disk_pressure import DiskSpace
from windlass_agent.runner.executor import Executor

_NODE_MOST_BYTES = 8 << 30
_NODE_SHARE = 0.1
"""The default: of the file system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    per_attempt_bytes: int
    per_node_bytes: int


def node_limit(space: DiskSpace) -> int:
    """When the settings name none."""
    return min(_NODE_MOST_BYTES, int(_NODE_SHARE * space.total_bytes))


class SpoolQuota:
    def __init__(
        self, executors: Sequence[Executor], limits: SpoolLimits, *, slots: int, backlog: Callable[[], int]
    ) -> None:
        """`backlog` says how many bytes lie here for attempts that have ended."""
        self._executors, self._limits = executors, limits
        self._slots, self._backlog = slots, backlog
        self._told = -1

    def share_out(self) -> None:
        """Called now and then; the keepers are told when something has changed."""
        share = max(0, self._limits.per_node_bytes - self._backlog()) // self._slots
        if share != self._told:
            self._told = share
            for executor in self._executors:
                executor.limit_spool(attempt_bytes=self._limits.per_attempt_bytes, slot_bytes=share)
