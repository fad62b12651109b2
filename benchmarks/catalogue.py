"""Every figure there is: what measures it and what it is to reach (the goals are those of the design)."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import null_rate, spawn_limit, store_verbs, submit_million
from benchmarks.bench import Bench
from benchmarks.figure import Bound, Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run that yields one figure or a few."""

    measure: Callable[[Bench], Iterator[Figure]]
    goals: Mapping[str, Sequence[Bound]]
    """Of each figure that it yields; none = it is a limit, or there is no goal."""


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement(measure=spawn_limit.measure, goals={"spawn_limit": ()}),
    Measurement(
        measure=null_rate.measure,
        goals={
            "null_rate": (Bound(key="value", at_least=20_000), Bound(key="coordinator_cpu_us", at_most=50))
        },
    ),
    Measurement(
        measure=null_rate.measure_one_instance,
        goals={"null_rate_one_instance": (Bound(key="value", at_least=10_000),)},
    ),
    Measurement(measure=store_verbs.measure_verbs, goals={"verbs_alone": ()}),
    Measurement(
        measure=store_verbs.measure_backlog, goals={"claim_backlog": (Bound(key="ratio", at_most=1.2),)}
    ),
    Measurement(
        measure=submit_million.measure,
        goals={
            "submit_million": (Bound(key="value", at_most=100), Bound(key="rss_growth_kib", at_most=1024))
        },
    ),
)


class UnknownFigure(Exception):
    """Names what is not there, and what may have been meant."""


def names() -> list[str]:
    return [name for measurement in MEASUREMENTS for name in measurement.goals]


def chosen(wanted: Iterable[str]) -> list[str]:
    """In the catalogue's order; all when none is named. Raises UnknownFigure."""
    known, wanted = names(), list(wanted)
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise UnknownFigure(f"there is no figure {name}: {hint}")
    return [name for name in known if name in wanted or not wanted]
