"""Coordinator and whole agents, but no processes: what is left of the cost of an instance, and who has it."""

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figure import Figure, of_rounds
from benchmarks.spawn_limit import spawn_limit
from benchmarks.system import TRUE, agent, coordinator, many, rate_of

_AGENTS = 2
_INSTANCES = 20_000
_WARM = 2_000


def measure(bench: Bench) -> Iterator[Figure]:
    directory = bench.scratch("null-agents")
    rates, coordinator_us, agents_us = [], [], []
    with ExitStack() as stack:
        limit = stack.enter_context(spawn_limit(directory))
        on = stack.enter_context(coordinator(directory))
        agents = [
            stack.enter_context(agent(on, f"agent-{number}", slots=1, module="benchmarks.null_executor"))
            for number in range(_AGENTS)
        ]
        rate_of(on, many("warm", TRUE, instances=_WARM), instances=_WARM)
        for number in range(bench.rounds):
            limit.sample()
            coordinator_s, agents_s = on.program.cpu_s(), sum(one.cpu_s() for one in agents)
            rates.append(rate_of(on, many("null", TRUE, instances=_INSTANCES), instances=_INSTANCES))
            coordinator_us.append((on.program.cpu_s() - coordinator_s) / _INSTANCES * 1e6)
            agents_us.append((sum(one.cpu_s() for one in agents) - agents_s) / _INSTANCES * 1e6)
            bench.say(f"null_rate_whole_agents {number + 1}: {rates[-1]:.0f}/s")
        limit.sample()
    yield of_rounds(
        "null_rate_whole_agents",
        rates,
        unit="instances/s",
        reference=limit.reference,
        coordinator_cpu_us=median(coordinator_us),
        agents_cpu_us=median(agents_us),
        agents=_AGENTS,
        instances=_INSTANCES,
    )
