"""Whatever fails in whatever order: two budgets that never pay for each other, and waits within bounds."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from windlass_coordinator.core.retry import GiveUp, RetryAfter, RetryPolicy, back_off, decide_retry
from windlass_proto.model.failures import FailureKind

policies = st.builds(
    RetryPolicy,
    base=st.timedeltas(timedelta(milliseconds=1), timedelta(seconds=10)),
    ceiling=st.timedeltas(timedelta(seconds=10), timedelta(hours=1)),
    infra_limit=st.integers(0, 12),
)
failures = st.lists(st.sampled_from(FailureKind), min_size=40, max_size=60)
jitters = st.floats(0, 1, exclude_max=True)


@examples(150)
@given(policies, failures, st.integers(0, 12), jitters)
def test_an_instance_fails_for_good_exactly_when_one_budget_is_spent(
    policy: RetryPolicy, failed: list[FailureKind], max_retries: int, jitter: float
) -> None:
    user = infra = 0
    for kind in failed:
        decision = decide_retry(
            kind,
            user_failures=user,
            infra_failures=infra,
            max_retries=max_retries,
            policy=policy,
            jitter=jitter,
        )
        if kind.spends_user_budget:
            user += 1
        else:
            infra += 1
        assert (decision.user_failures, decision.infra_failures) == (user, infra)
        assert user <= max_retries + 1, "I9"
        assert infra <= policy.infra_limit + 1
        is_over = kind is FailureKind.POISON or user > max_retries or infra > policy.infra_limit
        assert isinstance(decision, GiveUp) == is_over
        if isinstance(decision, GiveUp):
            return
        assert isinstance(decision, RetryAfter)
        assert timedelta(0) < decision.delay <= policy.ceiling
    raise AssertionError("no budget ends")


@examples(150)
@given(policies, st.integers(1, 10_000), jitters, jitters)
def test_a_wait_is_never_shorter_than_half_of_an_earlier_one(
    policy: RetryPolicy, nth: int, jitter: float, other: float
) -> None:
    wait, longer = (
        back_off(number, policy=policy, jitter=one) for number, one in ((nth, jitter), (nth + 1, other))
    )
    assert longer >= wait / 2 - timedelta(microseconds=2)
    assert longer <= policy.ceiling
