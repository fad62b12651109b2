"""What the attempt runner needs of whatever runs its commands, and of its neighbours.

Slots with keepers are the executors of every agent; a benchmark of the coordination alone brings others.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from windlass_agent.core.run_plan import CommandPlan, KeeperRecord, Lease
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.spool.intents import SharedPart
from windlass_proto.model.events import Happening, LostOnNode, PrepareFailed
from windlass_proto.model.ids import AttemptRef


class Executor(Protocol):
    """One slot: runs one command after another."""

    async def adopt(self) -> SlotInventory:
        """What it holds from before the agent started."""

    async def start(self) -> None: ...

    def hand_over(self, plan: CommandPlan, *, share: str | None = None) -> None: ...

    def stop(self, ref: AttemptRef, *, grace_s: float | None = None) -> None:
        """With the plan's grace, or this one if it is shorter."""

    def renew_lease(self, lease: Lease) -> None:
        """The node may keep what it has for so much longer."""

    @property
    def is_stuck(self) -> bool:
        """Whether it cannot be used, because processes in it could not be ended."""

    def forget(self, ref: AttemptRef) -> None: ...

    def limit_spool(self, *, attempt_bytes: int, slot_bytes: int) -> None:
        """How much output may lie on this node: of one attempt, and of this slot."""

    async def close(self, *, end_keeper: bool) -> None: ...


OnRecord = Callable[[KeeperRecord], None]
OnKeeperLost = Callable[[int, tuple[AttemptRef, ...], LostOnNode | PrepareFailed], None]
"""The keeper of a slot is gone, or cannot be started, and with it these attempts."""
ExecutorFactory = Callable[[int, OnRecord, OnKeeperLost], Executor]
"""Makes the executor of the slot with the given number."""


class Intents(Protocol):
    """The agent's journal of assignments."""

    def assign(self, shared: SharedPart, refs: Sequence[AttemptRef]) -> None: ...

    def give_gpus(self, ref: AttemptRef, gpus: Sequence[str]) -> None: ...

    def forget(self, refs: Iterable[AttemptRef]) -> None: ...


class LogSink(Protocol):
    """Who carries the output of commands away."""

    def watch(self, ref: AttemptRef, *, keeps_spool: bool) -> None: ...

    def ended(self, ref: AttemptRef, ends: tuple[int, int]) -> None: ...

    def let_go(self, ref: AttemptRef) -> None: ...

    def drop(self, ref: AttemptRef) -> None: ...


class EventSink(Protocol):
    """Who tells the coordinator."""

    @property
    def has_told_all(self) -> bool:
        """And was answered."""

    def tell(self, ref: AttemptRef, what: Happening) -> None: ...

    def drop(self, ref: AttemptRef) -> None: ...
