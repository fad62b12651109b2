"""`make simulate SEEDS=1000 FROM=0`: runs seeds, shows failures and, in the end, what was reached."""

import sys
import time
from argparse import ArgumentParser

from tests.simulation.coverage import Coverage
from tests.simulation.runs import run_seeds
from tests.simulation.simulation import Outcome

_PROGRESS_EVERY_S = 10.0


def main() -> int:
    parser = ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--coverage", action="store_true", help="also list what was reached how often")
    chosen = parser.parse_args()
    total, failed = Coverage(), []
    began = told = time.monotonic()
    for done, outcome in enumerate(run_seeds(chosen.first, chosen.seeds), start=1):
        total.add(outcome.coverage)
        if outcome.failure:
            failed.append(outcome.seed)
            _show(outcome)
        if time.monotonic() - told > _PROGRESS_EVERY_S:
            told = time.monotonic()
            print(f"{done} of {chosen.seeds} seeds, {len(failed)} failed", flush=True)
    seconds = time.monotonic() - began
    print(f"{chosen.seeds} seeds from {chosen.first} in {seconds:.0f} s, failed: {sorted(failed) or 'none'}")
    if chosen.coverage:
        print("\n".join(total.lines()))
    return 1 if failed else 0


def _show(outcome: Outcome) -> None:
    print(outcome.trace)
    print(f"\nseed {outcome.seed} failed: {outcome.failure}")
    print(f"again: make simulate SEEDS=1 FROM={outcome.seed}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
