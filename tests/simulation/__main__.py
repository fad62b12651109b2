"""`python -m tests.simulation --seeds 300 --from 0`: runs seeds, reports failures and what was reached."""

import sys
import time
from argparse import ArgumentParser

from tests.simulation.coverage import Coverage
from tests.simulation.simulation import run_seed


def main() -> int:
    parser = ArgumentParser(prog="simulate")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--trace", type=int, default=150, help="lines of the trace shown with a failure")
    parser.add_argument("--keep-going", action="store_true")
    chosen = parser.parse_args()
    total, failed, began = Coverage(), [], time.monotonic()
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        outcome = run_seed(seed, trace_lines=chosen.trace)
        total.add(outcome.coverage)
        if outcome.failure:
            failed.append(seed)
            print(outcome.trace)
            print(f"\nseed {seed} failed: {outcome.failure}\nagain: make simulate SEEDS=1 FROM={seed}")
            if not chosen.keep_going:
                break
    print(f"{chosen.seeds} seeds, {len(failed)} failed {failed}, {time.monotonic() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
