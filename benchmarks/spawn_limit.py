"""The limit of starting commands: the plainest loop that starts /bin/true with two pipes and waits.

Nothing that captures output can beat it. Each process of it sits at its standard input between rounds, so it
can be asked before and after every round of whatever is measured.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_rounds
from benchmarks.programs import Program, running

NAME = "popen_two_pipes"
NAME_ONE = "popen_two_pipes_one_process"
_STARTS = 700
"""Of one process in one round: a quarter of a second and more."""
_COMMAND = "/bin/true"


class SpawnLimit:
    """Rates of starts in two processes at once and in one, sampled whenever asked."""

    def __init__(self, loops: Sequence[Program]) -> None:
        self._loops = loops
        self.rates: list[float] = []
        self.rates_one: list[float] = []
        self._cpu_us: list[float] = []

    def sample(self) -> None:
        self.rates.append(self._rate(self._loops))

    def sample_one(self) -> None:
        self.rates_one.append(self._rate(self._loops[:1]))

    @property
    def cpu_us(self) -> float:
        """CPU of one start, loop and command together: the load of the machine hardly changes it."""
        return statistics.median(self._cpu_us)

    @property
    def reference(self) -> Reference:
        return Reference(name=NAME, value=statistics.median(self.rates))

    @property
    def reference_one(self) -> Reference:
        return Reference(name=NAME_ONE, value=statistics.median(self.rates_one))

    def _rate(self, loops: Sequence[Program]) -> float:
        starts = _STARTS * len(loops)
        cpu_s, start = sum(loop.cpu_s() for loop in loops), time.perf_counter()
        for loop in loops:
            loop.tell(str(_STARTS))
        for loop in loops:
            loop.hear()
        elapsed_s = time.perf_counter() - start
        self._cpu_us.append((sum(loop.cpu_s() for loop in loops) - cpu_s) / starts * 1e6)
        return starts / elapsed_s


@contextmanager
def spawn_limit(directory: Path) -> Iterator[SpawnLimit]:
    with ExitStack() as stack:
        loops = [
            stack.enter_context(
                running(f"spawn-{number}", ["benchmarks.spawn_limit"], directory=directory, talks=True)
            )
            for number in range(2)
        ]
        for loop in loops:
            loop.tell("20")
            loop.hear()
        yield SpawnLimit(loops)


def measure(bench: Bench) -> Iterator[Figure]:
    """The limit itself, as a figure: two processes, and how much one reaches."""
    with spawn_limit(bench.scratch("spawn_limit")) as limit:
        for _ in range(max(bench.rounds, 3)):
            limit.sample_one()
            limit.sample()
    yield of_rounds(
        "spawn_limit", limit.rates, unit="starts/s", reference=limit.reference_one, command=_COMMAND
    )


def main() -> None:
    """The loop: reads how many, starts as many, answers."""
    for line in sys.stdin:
        for _ in range(int(line)):
            subprocess.run(
                [_COMMAND],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                start_new_session=True,
                check=True,
            )
        print("done", flush=True)


if __name__ == "__main__":
    main()
