"""What an earlier life of the agent left in a slot, as far as the keeper's journal tells."""

from collections.abc import Collection
from dataclasses import dataclass

from windlass_agent.core.run_plan import ExitRecord, StartRecord
from windlass_agent.spool.keeper_journal import JournalContent
from windlass_proto.model.ids import AttemptRef


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInventory:
    """What an earlier life of the agent left in a slot."""

    running: AttemptRef | None = None
    """Also one whose keeper is gone and whose processes are still being ended: how is told when they are."""
    queued: tuple[AttemptRef, ...] = ()
    ended: tuple[ExitRecord, ...] = ()
    """All that the journal still holds; some may have been forgotten before."""
    lost: tuple[AttemptRef, ...] = ()
    """Begun, and the keeper ended without their exit record."""
    alive: bool = False
    rebooted: bool = False
    """The lost ones were lost with the machine, not by the keeper's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFindings:
    """What the journal tells of attempts that no living keeper has."""

    segments: dict[AttemptRef, int]
    ended: tuple[ExitRecord, ...]
    lost: tuple[AttemptRef, ...]
    rebooted: bool
    strays: tuple[StartRecord, ...]
    """Commands of the lost ones, in this boot."""


def read_findings(content: JournalContent, *, held: Collection[AttemptRef], boot_id: str) -> JournalFindings:
    """Without what a living keeper still has (`held`): that is heard from it."""
    old = {ref: segment for ref, segment in content.segment_of.items() if ref not in held}
    lost = tuple(ref for ref in old if ref not in content.ends)
    rebooted = any(old[ref].boot_id not in ("", boot_id) for ref in lost)
    return JournalFindings(
        segments={ref: segment.number for ref, segment in old.items()},
        ended=tuple(content.ends[ref] for ref in old if ref in content.ends),
        lost=lost,
        rebooted=rebooted,
        strays=() if rebooted else tuple(content.starts[ref] for ref in lost if ref in content.starts),
    )
