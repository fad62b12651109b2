"""Many seeds on all processors."""

import multiprocessing
import os
from collections.abc import Iterator

from tests.simulation.simulation import Outcome, run_seed

_SEEDS_AT_ONCE = 5


def run_seeds(first: int, count: int) -> Iterator[Outcome]:
    """The outcomes of `count` seeds from `first` on, as they come in."""
    seeds = range(first, first + count)
    processes = min(os.cpu_count() or 1, count)
    if processes == 1:
        yield from map(run_seed, seeds)
        return
    # Spawned: nothing of this process, its threads least of all, belongs into a run.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(run_seed, seeds, chunksize=_SEEDS_AT_ONCE)
