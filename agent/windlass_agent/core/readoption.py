"""What an agent that has just started makes of what its predecessor left (protocol.md, section 9)."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from windlass_agent.core.run_plan import ExitRecord
from windlass_proto.model.events import LostOnNode
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef

KEEPER_LOST = "its keeper ended without leaving an exit record"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFinding:
    """What one slot holds, from its keeper or, when that is gone, from the keeper's journal."""

    running: AttemptRef | None
    queued: tuple[AttemptRef, ...]
    ended: tuple[ExitRecord, ...]
    lost: tuple[AttemptRef, ...]
    """Handed to a keeper that is gone, without an exit record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """Only the intent is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InKeeper:
    """A living keeper has it, running or in its queue."""

    slot: int
    is_running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedBefore:
    """There is an exit record."""

    slot: int
    record: ExitRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LostBefore:
    """It may have run, and no record says how it ended: never a success, never repeated here."""

    slot: int | None
    what: LostOnNode


_SHUT_DOWN = LostOnNode(
    kind=FailureKind.INFRA_NODE_LOST, reason="the agent was shut down while the command ran"
)

Finding = NotStarted | InKeeper | EndedBefore | LostBefore


@dataclass(frozen=True, slots=True, kw_only=True)
class Readoption:
    attempts: Mapping[AttemptRef, Finding]
    """In the order of a slot's queue, then in that of the intents."""
    strangers: tuple[tuple[int, AttemptRef], ...]
    """In a slot without an intent: to be ended and forgotten."""


def decide_readoption(
    intents: Iterable[AttemptRef],
    slots: Mapping[int, SlotFinding],
    *,
    before_boot: AbstractSet[AttemptRef],
    ended_by_agent: AbstractSet[AttemptRef],
) -> Readoption:
    """An exit record wins over everything; what was assigned `before_boot` and has none cannot be trusted.

    What the agent ended because it was itself ended (`ended_by_agent`) is no result of the command's.
    """
    found: dict[AttemptRef, Finding] = {}
    for number, slot in slots.items():
        found |= _findings(number, slot, before_boot, ended_by_agent)
    known = set(intents_in_order := list(intents))
    attempts = {ref: finding for ref, finding in found.items() if ref in known}
    for ref in intents_in_order:
        if ref not in attempts:
            is_old = ref in before_boot
            attempts[ref] = LostBefore(slot=None, what=_lost(rebooted=True)) if is_old else NotStarted()
    strangers = tuple(
        (finding.slot, ref)
        for ref, finding in found.items()
        if ref not in known and not isinstance(finding, NotStarted) and finding.slot is not None
    )
    return Readoption(attempts=attempts, strangers=strangers)


def _findings(
    number: int,
    slot: SlotFinding,
    before_boot: AbstractSet[AttemptRef],
    ended_by_agent: AbstractSet[AttemptRef],
) -> dict[AttemptRef, Finding]:
    found: dict[AttemptRef, Finding] = {}
    for ref in slot.lost:
        found[ref] = LostBefore(slot=number, what=_lost(rebooted=ref in before_boot))
    if slot.running is not None:
        found[slot.running] = InKeeper(slot=number, is_running=True)
    for ref in slot.queued:
        found[ref] = InKeeper(slot=number, is_running=False)
    for record in slot.ended:
        if record.started and record.stopped and record.ref in ended_by_agent:
            found[record.ref] = LostBefore(slot=number, what=_SHUT_DOWN)
        else:
            found[record.ref] = EndedBefore(slot=number, record=record)
    return found


def _lost(*, rebooted: bool) -> LostOnNode:
    if rebooted:
        return LostOnNode(kind=FailureKind.INFRA_NODE_LOST, reason="the machine was restarted")
    return LostOnNode(kind=FailureKind.INFRA_KEEPER_LOST, reason=KEEPER_LOST)
