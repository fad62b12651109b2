"""Two budgets, the user's and the infrastructure's, and how long an instance waits."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass_coordinator.core.retry import GiveUp, RetryAfter, RetryPolicy, back_off, decide_retry
from windlass_proto.model.failures import FailureKind

POLICY = RetryPolicy(base=timedelta(seconds=1), ceiling=timedelta(seconds=60), infra_limit=2)
USERS = [kind for kind in FailureKind if kind.spends_user_budget]
INFRA = [kind for kind in FailureKind if not kind.spends_user_budget and kind is not FailureKind.POISON]


def decide(kind: FailureKind, *, user: int = 0, infra: int = 0, max_retries: int = 0) -> RetryAfter | GiveUp:
    return decide_retry(
        kind, user_failures=user, infra_failures=infra, max_retries=max_retries, policy=POLICY, jitter=0.0
    )


def test_the_six_kinds_of_the_users_own_doing_spend_the_users_budget() -> None:
    assert USERS == [
        FailureKind.USER_EXIT,
        FailureKind.USER_SIGNAL,
        FailureKind.TIMEOUT,
        FailureKind.OOM,
        FailureKind.USER_CONFIG,
        FailureKind.OUTPUT,
    ]


@pytest.mark.parametrize("kind", USERS)
def test_without_retries_the_first_failure_of_the_user_is_the_last(kind: FailureKind) -> None:
    assert decide(kind) == GiveUp(user_failures=1, infra_failures=0)


def test_max_retries_is_the_number_of_further_attempts() -> None:
    outcomes = [decide(FailureKind.USER_EXIT, user=spent, max_retries=2) for spent in range(3)]

    assert [type(outcome) for outcome in outcomes] == [RetryAfter, RetryAfter, GiveUp]


@pytest.mark.parametrize("kind", INFRA)
def test_the_infrastructure_does_not_spend_the_users_retries(kind: FailureKind) -> None:
    assert decide(kind, max_retries=0) == RetryAfter(
        delay=timedelta(seconds=0.5), user_failures=0, infra_failures=1
    )


def test_the_infrastructure_has_a_budget_of_its_own() -> None:
    outcomes = [decide(FailureKind.INFRA_NODE_LOST, infra=spent, user=0) for spent in range(3)]

    assert [type(outcome) for outcome in outcomes] == [RetryAfter, RetryAfter, GiveUp]


def test_poison_is_never_tried_again() -> None:
    assert decide(FailureKind.POISON, max_retries=5) == GiveUp(user_failures=0, infra_failures=1)


def test_the_wait_doubles_up_to_its_ceiling() -> None:
    waits = [back_off(failures, policy=POLICY, jitter=0.999_999).total_seconds() for failures in range(1, 9)]

    assert [round(wait) for wait in waits] == [1, 2, 4, 8, 16, 32, 60, 60]


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_half_of_every_wait_is_random_and_none_passes_the_ceiling(failures: int, jitter: float) -> None:
    full = min(POLICY.ceiling, POLICY.base * 2 ** min(failures - 1, 16))

    assert full / 2 <= back_off(failures, policy=POLICY, jitter=jitter) <= full
