"""300 runs of the whole system on virtual time, each with its own bad luck."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.simulation import required
from tests.simulation.coverage import Coverage
from tests.simulation.runs import run_seeds
from tests.simulation.simulation import Outcome, run_seed

SEEDS = 300
_ROOT = Path(__file__).parents[2]
_REACH = re.compile(r'\breach\("([a-z_.]+)"\)')


@cache
def outcomes() -> tuple[Outcome, ...]:
    """Run once for all tests of this file."""
    return tuple(sorted(run_seeds(0, SEEDS), key=lambda outcome: outcome.seed))


@cache
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


def test_runs_come_through_every_change_of_state() -> None:
    seen = {(kind, state, event.rsplit(" ", 1)[-1]) for kind, state, event in reached().pairs}
    assert required.TRANSITIONS - seen == set()


def test_runs_come_through_every_pair_of_state_and_event() -> None:
    pairs = reached().pairs
    assert {pair for pair in required.REPORTS if ("report", *pair) not in pairs} == set()
    assert {pair for pair in required.INVENTORY if ("inventory", *pair) not in pairs} == set()


def test_runs_come_through_every_failpoint_of_the_product() -> None:
    names = {
        name
        for root in ("agent", "coordinator")
        for path in (_ROOT / root).rglob("*.py")
        for name in _REACH.findall(path.read_text())
    }
    assert names - reached().failpoints.keys() == required.FAILPOINTS_ELSEWHERE.keys() & names


@pytest.mark.parametrize("seed", [1, 7, 23])
def test_a_seed_is_the_whole_of_a_run(seed: int) -> None:
    once, again = run_seed(seed), run_seed(seed)
    assert (once.digest, once.events, once.virtual_s) == (again.digest, again.events, again.virtual_s)
