"""Attempts that end without a report: released by their node, missing from it, or lost with it."""

from collections.abc import Iterable
from datetime import datetime

from windlass_coordinator.core.node_lifecycle import Revocation
from windlass_coordinator.core.records import HeldAttempt, NodeView
from windlass_coordinator.engine.claim import look_again
from windlass_coordinator.engine.settle import Ending, Rules, conclude
from windlass_coordinator.stores.base import AttemptEnd, Transaction
from windlass_proto import failpoints
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import AttemptState


def revoke(
    tx: Transaction, revocations: Iterable[tuple[HeldAttempt, Revocation]], *, rules: Rules, now: datetime
) -> None:
    """Ends live attempts as revoked; their fences are raised, their instances go on or stop."""
    endings = [
        Ending(
            end=AttemptEnd(
                ref=ref_of(held),
                state=revocation.state,
                failure=revocation.failure,
                reason=revocation.reason,
            ),
            was_stopping=held.state is AttemptState.STOPPING,
        )
        for held, revocation in revocations
    ]
    conclude(tx, endings, rules=rules, now=now)


def release(
    tx: Transaction, node: NodeView, refs: list[AttemptRef], *, rules: Rules, now: datetime
) -> list[bool]:
    """Takes back what the node never started; no budget is spent. One answer per ref."""
    held = {ref_of(attempt): attempt for attempt in tx.held_attempts(node.node_key)}
    # PREPARING too: an agent that was killed while it prepared finds no more than the assignment.
    unstarted = (AttemptState.LEASED, AttemptState.PREPARING, AttemptState.STOPPING)
    given_back = [held[ref] for ref in dict.fromkeys(refs) if ref in held and held[ref].state in unstarted]
    back = Revocation(state=AttemptState.RELEASED, failure=None, reason="given back by its node")
    revoke(tx, [(attempt, back) for attempt in given_back], rules=rules, now=now)
    look_again(tx, node)
    failpoints.reach("coord.release.before_commit")
    released = {ref_of(attempt) for attempt in given_back}
    return [ref in released for ref in refs]


def ref_of(held: HeldAttempt) -> AttemptRef:
    """The attempt's name in the agent protocol."""
    return AttemptRef(task_key=held.task_key, index=held.index, attempt=held.attempt, fence=held.fence)
