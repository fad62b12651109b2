"""Runs figures and prints one JSON line for each; progress goes to stderr."""

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog

from benchmarks import catalogue
from benchmarks.bench import Bench
from benchmarks.catalogue import MEASUREMENTS, Measurement, UnknownFigure
from benchmarks.noise import Noise, file_system, sync_ms
from benchmarks.orphans import adopt_orphans, end_orphans
from benchmarks.programs import BenchFailed
from windlass_proto.errors import WindlassError

_FAILED = 1
_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 = all measured, 1 = some could not be measured, 2 = a figure that does not exist."""
    options = _parser().parse_args(arguments)
    try:
        wanted = catalogue.chosen(name for name in options.figures.split(",") if name)
    except UnknownFigure as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return _USAGE
    if options.list:
        print("\n".join(wanted))
        return 0
    signal.signal(signal.SIGTERM, _end)
    _log_to_stderr()
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="windlass-bench-", dir=os.environ.get("BENCH_DIR")) as directory:
        bench = Bench(directory=Path(directory), rounds=options.rounds, patience_s=options.patience)
        bench.say(f"disk: {file_system(bench.directory)}, a sync takes {sync_ms(bench.directory):.2f} ms")
        failed = [one for one in MEASUREMENTS if not _measured(one, bench, wanted)]
    return _FAILED if failed else 0


def _measured(measurement: Measurement, bench: Bench, wanted: Sequence[str]) -> bool:
    """False when it could not be measured; the others are measured all the same."""
    asked = [name for name in measurement.goals if name in wanted]
    if not asked:
        return True
    bench.say(f"{', '.join(asked)} ...")
    noise = Noise(patience_s=bench.patience_s)
    try:
        figures = list(measurement.measure(bench))
    except (BenchFailed, WindlassError, OSError) as error:
        print(f"benchmarks: {', '.join(asked)}: {error}", file=sys.stderr, flush=True)
        return False
    finally:
        left = end_orphans()
        if left:
            bench.say(f"{left} processes were left behind and had to be killed")
    told = noise.told()
    for figure in figures:
        if figure.name in asked:
            print(figure.line(measurement.goals[figure.name], told), flush=True)
    return True


def _log_to_stderr() -> None:
    """Parts that are measured in this process log as well, and standard output is for figures."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _end(*_: object) -> None:
    """SIGTERM as Ctrl-C: everything that was started is ended on the way out."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures, and prints one JSON line per figure.",
    )
    parser.add_argument("figures", nargs="?", default="", metavar="FIGURE,FIGURE", help="all when left out")
    parser.add_argument("--list", action="store_true", help="only name the figures")
    parser.add_argument(
        "--rounds", type=int, default=int(os.environ.get("ROUNDS", "3")), help="of each rate [$ROUNDS or 3]"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=float(os.environ.get("PATIENCE", "20")),
        metavar="SECONDS",
        help="how long to wait for a quiet machine before each measurement [$PATIENCE or 20]",
    )
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
