"""What becomes of a node's attempts when it opens a session (protocol.md, sections 4 and 9)."""

from dataclasses import dataclass

from windlass_coordinator.core.records import AttemptView, HeldAttempt
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, NodeKey
from windlass_proto.model.states import AttemptState
from windlass_proto.model.verdicts import InventoryVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What a live attempt becomes that its node does not have any more."""

    state: AttemptState
    failure: FailureKind | None
    reason: str


def judge_inventory_item(
    view: AttemptView | None, ref: AttemptRef, *, node_key: NodeKey, has_ended: bool, logs_stored: bool
) -> InventoryVerdict:
    """Decides on one attempt that a node says it has, and that has ended there or not."""
    if view is None or view.node_key != node_key or view.fence != ref.fence:
        return InventoryVerdict.KILL
    if not view.state.is_terminal:
        return InventoryVerdict.REPORT if has_ended else InventoryVerdict.KEEP
    # What is over is over. What may be missing are the last bytes of its logs.
    if view.state in (AttemptState.LOST, AttemptState.RELEASED):
        return InventoryVerdict.KILL if logs_stored else InventoryVerdict.REPORT
    if not has_ended:
        # It was stopped before it began, and its agent was killed when it had told so: now it would begin.
        return InventoryVerdict.KILL
    return InventoryVerdict.FORGET if logs_stored else InventoryVerdict.REPORT


NO_RECORD = "its node came back without any record of it"
REBOOTED = "its machine was restarted"


def decide_missing(held: HeldAttempt, *, reason: str = NO_RECORD) -> Revocation:
    """Decides on a live attempt that its node does not have (any more)."""
    if held.state is AttemptState.LEASED:
        return Revocation(state=AttemptState.RELEASED, failure=None, reason="its node never received it")
    return Revocation(
        state=AttemptState.LOST,
        failure=FailureKind.INFRA_NODE_LOST,
        reason=reason,
    )


def nonce_is_good(given: str, *, current: str, previous: str) -> bool:
    """Whether a session may follow; the previous nonce counts too, as a reply may have been lost.

    No current one: this store was restored from a backup and cannot know it. Who comes first has it.
    """
    return not current or given in (current, previous)
