"""CommitOutputs: grants an attempt the right to publish, and records that it has it."""

from dataclasses import dataclass

from windlass_coordinator.core.publishing import CommitVerdict, Publication, decide_commit
from windlass_coordinator.core.records import NodeView
from windlass_coordinator.stores.base import Transaction
from windlass_proto import failpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    verdict: CommitVerdict
    supersedes: bool = False
    """An earlier attempt of the instance was granted it: what that one published gives way. Of a question
    that is asked again it is not known any more, so it may have been."""


def commit_outputs(
    tx: Transaction, node: NodeView, wanted: Publication, *, of_failed_command: bool
) -> Commit:
    """Asked again by the same attempt it answers the same; the attempt may name another manifest then, as
    nobody but itself can have published meanwhile."""
    ref = wanted.ref
    verdict = decide_commit(tx.standing(ref), ref, node=node, of_failed_command=of_failed_command)
    if not verdict.granted:
        return Commit(verdict=verdict)
    before = tx.published(ref.task_key, ref.index)
    if before != wanted:
        tx.publish(wanted)
    failpoints.reach("coord.outputs.before_commit")
    return Commit(verdict=verdict, supersedes=before is not None and ref.attempt > 1)
