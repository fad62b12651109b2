"""No-op commands through everything: durable store, real agents with their keepers, output captured.

Two slots in all for one and for two agents, so that all the variants have the same two cores to run on.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from benchmarks.bench import Bench
from benchmarks.figure import Figure, of_rounds
from benchmarks.programs import Program
from benchmarks.spawn_limit import spawn_limit
from benchmarks.system import TRUE, Coordinator, agent, coordinator, many, rate_of, ready_nodes
from tests.support.postgres import own_server

INSTANCES = 6_000
_WARM = 1_000


def measure(bench: Bench) -> Iterator[Figure]:
    yield _figure(bench, "noop_rate", agents=2, slots=1)


def measure_one_agent(bench: Bench) -> Iterator[Figure]:
    yield _figure(bench, "noop_rate_1_agent", agents=1, slots=2)


def measure_four_agents(bench: Bench) -> Iterator[Figure]:
    yield _figure(bench, "noop_rate_4_agents", agents=4, slots=1)


def measure_postgres(bench: Bench) -> Iterator[Figure]:
    with own_server(fsync=True) as server:
        yield _figure(bench, "postgres_noop", agents=2, slots=1, store=server.new_database())


def _figure(bench: Bench, name: str, *, agents: int, slots: int, store: str = "") -> Figure:
    directory = bench.scratch(name)
    rates: list[float] = []
    costs: list[Cost] = []
    with ExitStack() as stack:
        limit = stack.enter_context(spawn_limit(directory))
        on = stack.enter_context(coordinator(directory, store=store))
        programs = [
            stack.enter_context(agent(on, f"agent-{number}", slots=slots)) for number in range(agents)
        ]
        containment = sorted(set(ready_nodes(on.client).values()))
        _rate(on, _WARM)
        for number in range(bench.rounds):
            limit.sample()
            limit.sample_one()
            before = Cost.now(on, programs)
            rates.append(_rate(on, INSTANCES))
            costs.append(Cost.now(on, programs).since(before, instances=INSTANCES))
            bench.say(f"{name} {number + 1}: {rates[-1]:.0f}/s, limit {limit.rates[-1]:.0f}/s")
        limit.sample()
    cost = Cost(*(median(column) for column in zip(*costs, strict=True)))
    return of_rounds(
        name,
        rates,
        unit="instances/s",
        reference=limit.reference,
        limit_one_process=limit.reference_one.value,
        cpu_us={**cost._asdict(), "reference": limit.cpu_us},
        cpu_ratio=limit.cpu_us / sum(cost),
        agents=agents,
        slots_each=slots,
        instances=INSTANCES,
        containment=containment,
    )


class Cost(NamedTuple):
    """CPU, of one instance in microseconds or of all so far in seconds."""

    coordinator: float
    agents: float
    keepers_and_commands: float

    @classmethod
    def now(cls, on: Coordinator, agents: Sequence[Program]) -> "Cost":
        return cls(
            coordinator=on.program.cpu_s(),
            agents=sum(program.cpu_s() for program in agents),
            keepers_and_commands=sum(program.below_cpu_s() for program in agents),
        )

    def since(self, before: "Cost", *, instances: int) -> "Cost":
        return Cost(*((now - then) / instances * 1e6 for now, then in zip(self, before, strict=True)))


def _rate(on: Coordinator, instances: int) -> float:
    return rate_of(on, many("noop", TRUE, instances=instances), instances=instances)
