"""What becomes of a node's attempts when it comes back."""

from dataclasses import replace

import pytest

from windlass_coordinator.core.node_lifecycle import (
    Revocation,
    decide_missing,
    judge_inventory_item,
    nonce_is_good,
)
from windlass_coordinator.core.records import AttemptView, HeldAttempt
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence, NodeKey, TaskKey
from windlass_proto.model.states import AttemptState
from windlass_proto.model.verdicts import InventoryVerdict

OUR_NODE = NodeKey(1)
REF = AttemptRef(task_key=TaskKey(1), index=0, attempt=1, fence=Fence(40))
LIVE = [state for state in AttemptState if not state.is_terminal]
RESULTS = [AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.STOPPED]
REVOKED = [AttemptState.LOST, AttemptState.RELEASED]


def an_attempt(state: AttemptState) -> AttemptView:
    return AttemptView(
        attempt=1,
        fence=REF.fence,
        state=state,
        node_key=OUR_NODE,
        failure=None,
        exit_code=None,
        exit_signal=None,
    )


def verdict_on(
    view: AttemptView | None, *, has_ended: bool = False, logs_stored: bool = False
) -> InventoryVerdict:
    return judge_inventory_item(view, REF, node_key=OUR_NODE, has_ended=has_ended, logs_stored=logs_stored)


@pytest.mark.parametrize("state", [AttemptState.STOPPED, AttemptState.FAILED])
@pytest.mark.parametrize("logs_stored", [False, True])
def test_an_attempt_that_is_over_and_not_on_its_node_is_not_begun_after_all(
    state: AttemptState, logs_stored: bool
) -> None:
    assert verdict_on(an_attempt(state), logs_stored=logs_stored) is InventoryVerdict.KILL


@pytest.mark.parametrize("state", LIVE)
def test_a_live_attempt_goes_on(state: AttemptState) -> None:
    assert verdict_on(an_attempt(state)) is InventoryVerdict.KEEP


@pytest.mark.parametrize("state", LIVE)
def test_an_attempt_that_ended_unseen_is_reported(state: AttemptState) -> None:
    assert verdict_on(an_attempt(state), has_ended=True) is InventoryVerdict.REPORT


@pytest.mark.parametrize("state", RESULTS)
def test_a_known_result_is_forgotten_when_its_logs_are_stored(state: AttemptState) -> None:
    assert verdict_on(an_attempt(state), has_ended=True, logs_stored=True) is InventoryVerdict.FORGET
    assert verdict_on(an_attempt(state), has_ended=True, logs_stored=False) is InventoryVerdict.REPORT


@pytest.mark.parametrize("state", REVOKED)
@pytest.mark.parametrize("has_ended", [True, False])
def test_a_revoked_attempt_is_killed_even_if_it_ended_well(state: AttemptState, has_ended: bool) -> None:
    assert verdict_on(an_attempt(state), has_ended=has_ended, logs_stored=True) is InventoryVerdict.KILL


@pytest.mark.parametrize("state", AttemptState)
def test_an_old_fence_is_killed_in_every_state(state: AttemptState) -> None:
    newer = replace(an_attempt(state), fence=Fence(REF.fence + 1))

    assert verdict_on(newer, has_ended=True, logs_stored=True) is InventoryVerdict.KILL


def test_what_is_not_this_nodes_is_killed() -> None:
    anothers = replace(an_attempt(AttemptState.RUNNING), node_key=NodeKey(2))

    assert verdict_on(anothers) is InventoryVerdict.KILL
    assert verdict_on(None) is InventoryVerdict.KILL


def test_a_missing_attempt_that_was_only_leased_is_released() -> None:
    held = HeldAttempt(task_key=TaskKey(1), index=0, attempt=1, fence=REF.fence, state=AttemptState.LEASED)

    assert decide_missing(held) == Revocation(
        state=AttemptState.RELEASED, failure=None, reason="its node never received it"
    )


@pytest.mark.parametrize("state", [state for state in LIVE if state is not AttemptState.LEASED])
def test_a_missing_attempt_of_which_something_was_heard_is_lost(state: AttemptState) -> None:
    held = HeldAttempt(task_key=TaskKey(1), index=0, attempt=1, fence=REF.fence, state=state)

    assert decide_missing(held) == Revocation(
        state=AttemptState.LOST,
        failure=FailureKind.INFRA_NODE_LOST,
        reason="its node came back without any record of it",
    )


def test_the_newest_nonce_is_good_and_the_one_before_while_its_reply_may_have_been_lost() -> None:
    assert nonce_is_good("new", current="new", previous="old")
    assert nonce_is_good("old", current="new", previous="old")
    assert not nonce_is_good("older", current="new", previous="old")
    assert not nonce_is_good("old", current="new", previous="new")


def test_a_store_that_cannot_know_the_nonce_takes_the_first_one_that_comes() -> None:
    assert nonce_is_good("newer than the backup", current="", previous="")
