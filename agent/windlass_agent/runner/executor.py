"""What the attempt runner needs of whatever runs its commands, and of its neighbours.

Slots with keepers are the executors of every agent; a benchmark of the coordination alone brings others.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from windlass_agent.core.run_plan import CommandPlan, KeeperRecord
from windlass_agent.runner.keeper_client import SlotInventory
from windlass_agent.spool.intents import SharedPart
from windlass_proto.model.events import Happening
from windlass_proto.model.ids import AttemptRef


class Executor(Protocol):
    """One slot: runs one command after another."""

    async def adopt(self) -> SlotInventory:
        """What it holds from before the agent started."""

    async def start(self) -> None: ...

    def hand_over(self, plan: CommandPlan, *, share: str | None = None) -> None: ...

    def stop(self, ref: AttemptRef) -> None: ...

    def forget(self, ref: AttemptRef) -> None: ...

    def limit_spool(self, *, attempt_bytes: int, slot_bytes: int) -> None:
        """How much output may lie on this node: of one attempt, and of this slot."""

    async def close(self, *, end_keeper: bool) -> None: ...


OnRecord = Callable[[KeeperRecord], None]
OnKeeperLost = Callable[[int, tuple[AttemptRef, ...]], None]
ExecutorFactory = Callable[[int, OnRecord, OnKeeperLost], Executor]
"""Makes the executor of the slot with the given number."""


class Intents(Protocol):
    """The agent's journal of assignments."""

    def assign(self, shared: SharedPart, refs: Sequence[AttemptRef]) -> None: ...

    def forget(self, refs: Iterable[AttemptRef]) -> None: ...


class LogSink(Protocol):
    """Who carries the output of commands away."""

    def watch(self, ref: AttemptRef, *, keeps_spool: bool) -> None: ...

    def ended(self, ref: AttemptRef, ends: tuple[int, int]) -> None: ...

    def let_go(self, ref: AttemptRef) -> None: ...

    def drop(self, ref: AttemptRef) -> None: ...


class EventSink(Protocol):
    """Who tells the coordinator."""

    def tell(self, ref: AttemptRef, what: Happening) -> None: ...

    def drop(self, ref: AttemptRef) -> None: ...
