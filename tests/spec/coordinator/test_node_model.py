"""A node that comes back: every attempt it may list, in every state that the records may show."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from windlass_coordinator.core.fences import fence_floor
from windlass_coordinator.core.node_lifecycle import decide_missing, judge_inventory_item, nonce_is_good
from windlass_coordinator.core.records import AttemptView, HeldAttempt
from windlass_proto.model.ids import AttemptRef, Fence, NodeKey, TaskKey
from windlass_proto.model.states import AttemptState
from windlass_proto.model.verdicts import InventoryVerdict

HERE, ELSEWHERE = NodeKey(1), NodeKey(2)
CURRENT, OLD = Fence(11), Fence(10)
S = AttemptState


def a_view(state: AttemptState, *, node: NodeKey) -> AttemptView:
    return AttemptView(
        attempt=2,
        fence=CURRENT,
        state=state,
        node_key=node,
        failure=None,
        exit_code=None,
        exit_signal=None,
    )


def expected(
    state: AttemptState | None, node: NodeKey, fence: Fence, *, has_ended: bool, logs_stored: bool
) -> set[InventoryVerdict]:
    """In the order of the law: whose it is, then whether it is over, then what is still wanted."""
    if state is None or node is not HERE or fence is not CURRENT:
        return {InventoryVerdict.KILL}
    if state in (S.LOST, S.RELEASED):
        # Its process must not go on; of one that has ended the rest of the output may still be wanted.
        return {InventoryVerdict.KILL} if logs_stored else {InventoryVerdict.KILL, InventoryVerdict.REPORT}
    if state.is_terminal and not has_ended:
        # What the node has of it could only begin now.
        return {InventoryVerdict.KILL}
    if state.is_terminal:
        return {InventoryVerdict.FORGET if logs_stored else InventoryVerdict.REPORT}
    return {InventoryVerdict.REPORT if has_ended else InventoryVerdict.KEEP}


def test_the_verdict_on_every_attempt_that_a_node_may_list() -> None:
    for state, node, fence, has_ended, logs_stored in product(
        [None, *AttemptState], (HERE, ELSEWHERE), (CURRENT, OLD), (False, True), (False, True)
    ):
        view = None if state is None else a_view(state, node=node)
        ref = AttemptRef(task_key=TaskKey(1), index=0, attempt=2, fence=fence)
        verdict = judge_inventory_item(view, ref, node_key=HERE, has_ended=has_ended, logs_stored=logs_stored)
        assert verdict in expected(state, node, fence, has_ended=has_ended, logs_stored=logs_stored)


def test_what_a_node_does_not_list_is_given_back_or_lost_and_never_the_users_failure() -> None:
    for state in (state for state in AttemptState if not state.is_terminal):
        held = HeldAttempt(task_key=TaskKey(1), index=0, attempt=2, fence=CURRENT, state=state)
        revocation = decide_missing(held)
        assert revocation.state is (S.RELEASED if state is S.LEASED else S.LOST)
        assert (revocation.failure is None) == (revocation.state is S.RELEASED)
        assert revocation.failure is None or not revocation.failure.spends_user_budget
        assert revocation.reason


nonces = st.text(min_size=1, max_size=2)


@examples(60)
@given(nonces, nonces, nonces)
def test_only_the_two_newest_nonces_open_a_session(given_one: str, current: str, previous: str) -> None:
    assert nonce_is_good(given_one, current=current, previous=previous) == (given_one in {current, previous})


@examples(60)
@given(st.lists(st.integers(0, 2**40 - 2), min_size=1, max_size=6))
def test_fences_grow_over_restores_whatever_was_issued_before(issued: list[int]) -> None:
    """Each entry is one life of the store: so many fences, then a restore."""
    newest = 0
    for incarnation, count in enumerate(issued, start=1):
        first = fence_floor(incarnation) + 1
        assert first > newest
        newest = first + count
