"""Every figure there is: what measures it and what it is to reach (the goals are those of the design)."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import (
    fleet,
    keepers,
    latency,
    logs,
    mounts,
    noop_rate,
    null_agents,
    null_rate,
    spawn_limit,
    store_verbs,
    submit_million,
    uploads,
)
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
    Measurement(measure=noop_rate.measure, goals={"noop_rate": (Bound(key="ratio", at_least=0.55),)}),
    Measurement(measure=noop_rate.measure_one_agent, goals={"noop_rate_1_agent": ()}),
    Measurement(measure=noop_rate.measure_four_agents, goals={"noop_rate_4_agents": ()}),
    Measurement(
        measure=keepers.measure_two_slots, goals={"keeper_rate": (Bound(key="ratio", at_least=0.8),)}
    ),
    Measurement(
        measure=keepers.measure_sixteen_slots,
        goals={"keeper_rate_16_slots": (Bound(key="ratio", at_least=0.8),)},
    ),
    Measurement(
        measure=keepers.measure_idle,
        goals={"idle_start_exit": (Bound(key="p50", at_most=2), Bound(key="max", at_most=4))},
    ),
    Measurement(measure=keepers.measure_isolation, goals={"isolation_cost": (Bound(key="p50", at_most=10),)}),
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
    Measurement(measure=null_agents.measure, goals={"null_rate_whole_agents": ()}),
    Measurement(
        measure=noop_rate.measure_postgres,
        goals={"postgres_noop": (Bound(key="value", at_least=1_000),)},
    ),
    Measurement(
        measure=null_rate.measure_postgres,
        goals={"postgres_null": (Bound(key="value", at_least=8_000),)},
    ),
    Measurement(
        measure=latency.measure,
        goals={
            "dispatch_ms": (Bound(key="p50", at_most=3), Bound(key="p99", at_most=8)),
            "notice_ms": (Bound(key="p50", at_most=2), Bound(key="p99", at_most=6)),
            "dag_step_ms": (Bound(key="p50", at_most=2.5), Bound(key="p99", at_most=8)),
        },
    ),
    Measurement(measure=store_verbs.measure_verbs, goals={"verbs_alone": ()}),
    Measurement(
        measure=store_verbs.measure_backlog, goals={"claim_backlog": (Bound(key="ratio", at_most=1.2),)}
    ),
    Measurement(
        measure=logs.measure,
        goals={"log_rate": (Bound(key="value", at_least=250), Bound(key="cpu_s_per_gib", at_most=5))},
    ),
    Measurement(
        measure=submit_million.measure,
        goals={
            "submit_million": (Bound(key="value", at_most=100), Bound(key="rss_growth_kib", at_most=1024))
        },
    ),
    Measurement(
        measure=mounts.measure_read,
        goals={
            "mount_cold": (
                Bound(key="ratio", at_least=0.7),
                Bound(key="agent_growth_mib", at_most=150),
            ),
            "mount_warm": (Bound(key="ratio", at_least=0.8),),
        },
    ),
    Measurement(measure=mounts.measure_list, goals={"mount_list": (Bound(key="value", at_most=5),)}),
    Measurement(
        measure=uploads.measure,
        goals={"upload": (Bound(key="ratio", at_least=0.7), Bound(key="agent_growth_mib", at_most=150))},
    ),
    Measurement(
        measure=fleet.measure,
        goals={
            "fleet_memory": (Bound(key="value", at_most=60),),
            "fleet_idle_cores": (Bound(key="value", at_most=0.4),),
            "fleet_wake_ms": (Bound(key="p99", at_most=15),),
            "fleet_restart": (
                Bound(key="value", at_most=60),
                Bound(key="false_losses", at_most=0),
                Bound(key="submit_p99_ms", at_most=1000),
            ),
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
