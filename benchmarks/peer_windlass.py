"""Windlass as one of the peers of a comparison: the same words, and the same one JSON line, as the others.

    python benchmarks/peer_windlass.py DIRECTORY

DIRECTORY (or $BENCH_DIR_SHARED) holds lib.py and peers/common.py; their knobs (NS, REPS, LAT, CHAIN, QUEUED)
hold here too. Everything is as users have it: a durable store, output captured, two slots in all.
"""

import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY)]

from benchmarks import null_rate  # noqa: E402 - it may be started as a file, from anywhere
from benchmarks.orphans import adopt_orphans, end_orphans  # noqa: E402
from benchmarks.system import Coordinator, agent, chain, coordinator, many  # noqa: E402
from windlass_proto import __version__  # noqa: E402

_VARIANTS = ((1, 2), (2, 1), (4, 1))
"""Agents, and slots of each: two in all, but for four agents, who cannot have half of one."""
_DEADLINE_S = 600.0
_INSTANCES = 2_000
"""Of a stamped run."""


def main(arguments: Sequence[str]) -> None:
    place = arguments[0] if arguments else os.environ.get("BENCH_DIR_SHARED", "")
    if not (Path(place) / "peers" / "common.py").is_file():
        sys.exit("peer_windlass: name the directory that holds lib.py and peers/common.py")
    sys.path[:0] = [str(Path(place).resolve() / "peers")]
    shared = importlib.import_module("common")
    adopt_orphans()
    try:
        with tempfile.TemporaryDirectory() as directory:
            run = shared.Run("peer_windlass", version=__version__)
            _measure(shared, run, Path(directory))
            run.emit()
    finally:
        end_orphans()


def _measure(shared: ModuleType, run: Any, directory: Path) -> None:
    stamp = shared.build_stamp(str(directory))
    for agents, slots in _VARIANTS:
        place = directory / f"agents-{agents}"
        place.mkdir()
        with ExitStack() as stack:
            on = stack.enter_context(coordinator(place))
            for number in range(agents):
                stack.enter_context(agent(on, f"agent-{number}", slots=slots))
            _wait(on, many("warm", [shared.TRUE], instances=200))
            _throughput(shared, run, on, prefix=f"agents{agents}_")
            run.put(**{f"agents{agents}_stamped_tasks_s": _stamped(shared, on, stamp, place)})
            if agents == 2:
                _latencies(shared, run, on, stamp, place)
    null = directory / "null"
    null.mkdir()
    _null(shared, run, null)
    _queued(shared, run, directory)


def _throughput(shared: ModuleType, run: Any, on: Coordinator, *, prefix: str) -> None:
    for n in shared.NS:
        rates, cpu = [], []
        for _ in range(shared.REPS if n <= 2000 else 1):
            before, start = on.program.cpu_s(), time.time()
            _wait(on, many("noop", [shared.TRUE], instances=n))
            rates.append(n / (time.time() - start))
            cpu.append((on.program.cpu_s() - before) / n * 1e6)
        run.put(
            **{f"{prefix}n{n}_tasks_s": shared.summ(rates), f"{prefix}n{n}_cpu_us_per_task": shared.summ(cpu)}
        )


def _stamped(shared: ModuleType, on: Coordinator, stamp: str, place: Path) -> Any:
    """From the tasks' own time stamps: free of how the client waits."""
    rates = []
    for number in range(shared.REPS):
        file = place / f"stamped-{number}"
        _wait(on, many("stamped", [stamp, str(file), "x"], instances=_INSTANCES))
        moments = sorted(int(line.split()[1]) / 1e9 for line in file.read_text().splitlines())
        rates.append((len(moments) - 1) / (moments[-1] - moments[0]))
    return shared.summ(rates)


def _latencies(shared: ModuleType, run: Any, on: Coordinator, stamp: str, place: Path) -> None:
    file = place / "single"

    def one(tag: str) -> tuple[float, float]:
        start = time.time()
        _wait(on, many("single", [stamp, str(file), tag], instances=1))
        return start, time.time()

    one("warm")
    run.put(**shared.latency(one, str(file)))
    steps = place / "chain"
    _wait(on, chain("chain", [[stamp, str(steps), f"c{number}"] for number in range(shared.CHAIN)]))
    run.put(dag_step_ms=shared.chain_ms(str(steps)))


def _null(shared: ModuleType, run: Any, directory: Path) -> None:
    """Coordination alone: agents that start no process."""
    with ExitStack() as stack:
        on = stack.enter_context(coordinator(directory))
        agents = [null_rate.null_agent(stack, on, f"null-{number}") for number in range(null_rate.AGENTS)]
        spec = many("null", [shared.TRUE], instances=null_rate.INSTANCES)
        rounds = [
            null_rate.one_round(on, agents, spec, instances=null_rate.INSTANCES)
            for _ in range(shared.REPS + 1)
        ][1:]
    run.put(
        null_tasks_s=shared.summ(one.rate for one in rounds),
        null_cpu_us_per_task=shared.summ(one.coordinator_cpu_us for one in rounds),
    )


def _queued(shared: ModuleType, run: Any, directory: Path) -> None:
    """Memory of the coordinator while so many instances of one task wait."""
    place = directory / "queued"
    place.mkdir()
    with coordinator(place) as on:
        on.client.submit(many("warm", [shared.TRUE], instances=1))
        before = shared.rss_mib(on.program.pid)
        times = []
        for _ in range(3):
            start = time.time()
            on.client.submit(many("queued", [shared.TRUE], instances=shared.QUEUED))
            times.append((time.time() - start) * 1e3)
        run.put(
            queued_rss_mib_before_after=[before, shared.rss_mib(on.program.pid)],
            queued_submit_ms=round(statistics.median(times), 2),
        )


def _wait(on: Coordinator, spec: Any) -> None:
    on.wait(on.client.submit(spec), within_s=_DEADLINE_S)


if __name__ == "__main__":
    main(sys.argv[1:])
