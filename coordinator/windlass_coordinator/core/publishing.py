"""Who may publish the outputs of an instance (invariant I12).

The object store cannot tell an old attempt from a new one, so the fence lies here: an attempt asks before
the first of its objects gets its final name, and only the one that holds its instance at that moment is
granted it. Since fences only grow, and one attempt of an instance is live, at most one at a time is; one that
comes later takes over from one that was granted it and then lost (decision 0014).
"""

from dataclasses import dataclass

from windlass_coordinator.core.records import NodeView
from windlass_proto.model.ids import AttemptRef, Fence, NodeKey
from windlass_proto.model.states import AttemptState


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An attempt, and whether its instance is still its own."""

    state: AttemptState
    fence: Fence
    node_key: NodeKey
    epoch: int
    is_detached: bool
    newest_attempt: int
    """Of the instance."""
    newest_fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What an attempt may publish: the manifest, by its digest, and how much it names."""

    ref: AttemptRef
    manifest_digest: str
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitVerdict:
    """The answer to an attempt that wants to publish."""

    granted: bool
    reason: str = ""
    not_yet: bool = False
    """Its exit is on its way here: it may ask again."""


_GRANTED = CommitVerdict(granted=True)


def decide_commit(
    standing: Standing | None, ref: AttemptRef, *, node: NodeView, of_failed_command: bool
) -> CommitVerdict:
    """Whether the attempt may publish, asked by `node` in its current session."""
    if standing is None or standing.node_key != node.node_key:
        return _refused("this attempt is not on record for this node")
    if (standing.fence, standing.newest_fence, standing.newest_attempt) != (
        ref.fence,
        ref.fence,
        ref.attempt,
    ):
        return _refused("the instance is not this attempt's any more")
    if standing.state.is_terminal or standing.state is AttemptState.STOPPING:
        return _refused(f"the attempt is {standing.state}")
    if standing.is_detached or standing.epoch != node.epoch:
        return _refused("the node has to open a new session first")
    if standing.state is AttemptState.FINALIZING or of_failed_command:
        return _GRANTED
    return CommitVerdict(granted=False, reason="its exit is not on record yet", not_yet=True)


def _refused(reason: str) -> CommitVerdict:
    return CommitVerdict(granted=False, reason=reason)
