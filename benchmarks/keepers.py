"""The node alone: keepers that start commands as fast as they can, and one that starts one now and then."""

import statistics
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_rounds, of_samples
from benchmarks.keeper_rate import idle_start_exit, keepers_alone, start_exit_by_isolation
from benchmarks.spawn_limit import spawn_limit
from windlass_proto.model.specs import Isolation

_STARTS = 3_000
_IDLE_STARTS = 40
_ISOLATED_STARTS = 100


def measure_two_slots(bench: Bench) -> Iterator[Figure]:
    yield _rate(bench, "keeper_rate", slots=2)


def measure_sixteen_slots(bench: Bench) -> Iterator[Figure]:
    yield _rate(bench, "keeper_rate_16_slots", slots=16)


def measure_idle(bench: Bench) -> Iterator[Figure]:
    """A start and its exit on a node that has just slept, compared with a bare start."""
    with spawn_limit(bench.scratch("idle")) as limit:
        limit.sample_one()
        samples = idle_start_exit(_IDLE_STARTS)
        limit.sample_one()
    bare = Reference(name="popen_two_pipes_ms", value=1e3 / limit.reference_one.value)
    yield of_samples("idle_start_exit", samples, unit="ms", reference=bare)


def measure_isolation(bench: Bench) -> Iterator[Figure]:
    """What `standard` adds to each start and exit: each one less the `dev` one just before it."""
    took_ms = start_exit_by_isolation(_ISOLATED_STARTS)
    plain, isolated = took_ms[Isolation.DEV], took_ms[Isolation.STANDARD]
    reference = Reference(name="dev_start_exit_ms", value=statistics.median(plain))
    added = [after - before for before, after in zip(plain, isolated, strict=True)]
    yield of_samples("isolation_cost", added, unit="ms", reference=reference)


def _rate(bench: Bench, name: str, *, slots: int) -> Figure:
    rates = []
    with spawn_limit(bench.scratch(name)) as limit:
        for number in range(bench.rounds):
            limit.sample()
            limit.sample_one()
            rates.append(keepers_alone(slots, _STARTS))
            bench.say(f"{name} {number + 1}: {rates[-1]:.0f}/s, limit {limit.rates[-1]:.0f}/s")
        limit.sample()
    return of_rounds(
        name,
        rates,
        unit="starts/s",
        reference=limit.reference,
        limit_one_process=limit.reference_one.value,
        slots=slots,
        starts=_STARTS,
    )
