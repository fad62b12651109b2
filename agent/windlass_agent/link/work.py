"""What the loops of the link need of whatever runs the attempts."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from windlass_agent.core.prefetch import Demand
from windlass_agent.core.run_plan import Lease
from windlass_proto.model.assignments import AssignmentBatch, InventoryItem, VerdictItem
from windlass_proto.model.events import AttemptEvent
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.verdicts import EventVerdict


class Work(Protocol):
    demand_changed: asyncio.Event
    """Set when `demand` may have grown."""
    release_due: asyncio.Event
    """Set when there is something to give back."""

    @property
    def running(self) -> int:
        """Attempts whose command runs."""

    @property
    def stuck_slots(self) -> int:
        """Slots that cannot be used, because processes in them could not be ended."""

    @property
    def is_empty(self) -> bool:
        """No attempt is here in any phase, and nothing is to be told or given back of those that were."""

    def lacks(self, refs: Iterable[AttemptRef]) -> list[AttemptRef]:
        """Those that are not here in any phase; assignments of theirs on the way are too late."""

    @property
    def has_queued(self) -> bool:
        """Whether an exit would be followed by a start without the coordinator's help."""

    def demand(self) -> Demand: ...

    def accept(self, batches: Sequence[AssignmentBatch]) -> None:
        """Takes assignments; when it returns they are written down. Raises OSError when they cannot be,
        and gives them back."""

    def turn_down(self, batches: Sequence[AssignmentBatch]) -> None:
        """Gives them back."""

    def inventory(self) -> Sequence[InventoryItem]: ...

    def obey(self, verdicts: Sequence[VerdictItem]) -> None:
        """The coordinator's answer to the inventory."""

    def stop(self, refs: Iterable[AttemptRef]) -> None: ...

    def kill(self, refs: Iterable[AttemptRef]) -> None:
        """They are fenced: ends them and tells nothing of them."""

    def forget(self, refs: Iterable[AttemptRef]) -> None: ...

    def answered(self, event: AttemptEvent, verdict: EventVerdict) -> None: ...

    def renew_lease(self, lease: Lease) -> None:
        """Keepers are told until when the node may keep what it has."""

    def suspend(self) -> None:
        """The lease is gone: nothing new starts until `resume` or `obey`."""

    def resume(self) -> None: ...

    def deletable(self, limit: int) -> list[AttemptRef]:
        """Attempts of which everything is told and uploaded, still kept here."""

    def to_release(self, limit: int) -> list[AttemptRef]: ...

    def released(self, ref: AttemptRef, *, accepted: bool) -> None: ...
