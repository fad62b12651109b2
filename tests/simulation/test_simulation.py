"""300 runs of the whole system on virtual time, each with its own bad luck."""

from functools import cache

import pytest

from tests.simulation.coverage import Coverage
from tests.simulation.runs import run_seeds
from tests.simulation.simulation import Outcome, run_seed

SEEDS = 300


@cache
def outcomes() -> tuple[Outcome, ...]:
    """Run once for all tests of this file."""
    return tuple(sorted(run_seeds(0, SEEDS), key=lambda outcome: outcome.seed))


def reached() -> Coverage:
    total = Coverage()
    for outcome in outcomes():
        total.add(outcome.coverage)
    return total


def test_no_promise_is_broken_whatever_goes_wrong() -> None:
    failed = [outcome for outcome in outcomes() if outcome.failure]
    if failed:
        first = failed[0]
        pytest.fail(
            f"{first.trace}\n\nseed {first.seed}: {first.failure}\n"
            f"again: make simulate SEEDS=1 FROM={first.seed}\n"
            f"failed: {[outcome.seed for outcome in failed]}"
        )


@pytest.mark.parametrize("seed", [1, 7, 23])
def test_a_seed_is_the_whole_of_a_run(seed: int) -> None:
    once, again = run_seed(seed), run_seed(seed)
    assert (once.digest, once.events, once.virtual_s) == (again.digest, again.events, again.virtual_s)
