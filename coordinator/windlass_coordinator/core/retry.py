"""Whether a failed instance gets another attempt, and when (promises P9: two budgets)."""

from dataclasses import dataclass
from datetime import timedelta

from windlass_proto.model.failures import FailureKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait between attempts, and how often the infrastructure may fail one instance."""

    base: timedelta = timedelta(seconds=1)
    """Before the second attempt; doubled for each further one."""
    ceiling: timedelta = timedelta(minutes=5)
    infra_limit: int = 10
    """Attempts of one instance that may be lost to the infrastructure."""
    poison_nodes: int = 3
    """Nodes in a row that may be lost while they run the same instance; then the instance is to blame."""
    quarantine_jobs: int = 5
    """Jobs in a row of which a node may fail to prepare an attempt; then the node is to blame."""
    avoid_node_for: timedelta = timedelta(seconds=30)
    """So long another node is preferred to the one that an attempt was lost on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAfter:
    """Another attempt, when `delay` is over."""

    delay: timedelta
    user_failures: int
    infra_failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The instance has failed for good."""

    user_failures: int
    infra_failures: int


def decide_retry(
    kind: FailureKind,
    *,
    user_failures: int,
    infra_failures: int,
    max_retries: int,
    policy: RetryPolicy,
    jitter: float,
) -> RetryAfter | GiveUp:
    """Decides after a failure of `kind`, with the counts before it; `jitter` is in [0, 1)."""
    if kind.spends_user_budget:
        user_failures += 1
        spent, may_retry = user_failures, user_failures <= max_retries
    else:
        infra_failures += 1
        spent, may_retry = infra_failures, infra_failures <= policy.infra_limit
    if kind is FailureKind.POISON or not may_retry:
        return GiveUp(user_failures=user_failures, infra_failures=infra_failures)
    return RetryAfter(
        delay=back_off(spent, policy=policy, jitter=jitter),
        user_failures=user_failures,
        infra_failures=infra_failures,
    )


_TAKES_DOWN_NODES = (FailureKind.INFRA_NODE_LOST, FailureKind.INFRA_KEEPER_LOST)


def may_be_poison(kind: FailureKind, *, infra_failures: int, policy: RetryPolicy) -> bool:
    """Whether it is worth counting the nodes that the instance has taken down (promise P18)."""
    return kind in _TAKES_DOWN_NODES and infra_failures + 1 >= policy.poison_nodes


def back_off(failures: int, *, policy: RetryPolicy, jitter: float) -> timedelta:
    """Doubles with each failure up to the ceiling; the upper half of it is random, so that herds part."""
    # 2**32 times any base is far beyond any ceiling; the bound keeps the number small.
    full = min(policy.ceiling, policy.base * (1 << min(failures - 1, 32)))
    return full * (0.5 + jitter / 2)
