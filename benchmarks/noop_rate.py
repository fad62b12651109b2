"""No-op commands through everything: durable store, real agents with their keepers, output captured.

Two slots in all for one and for two agents, so that all the variants have the same two cores to run on.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figure import Figure, of_rounds
from benchmarks.programs import BenchFailed, Program
from benchmarks.spawn_limit import spawn_limit
from benchmarks.system import TRUE, Coordinator, agent, coordinator, many, ready_nodes

INSTANCES = 6_000
_WARM = 1_000
_DEADLINE_S = 180.0


def measure(bench: Bench) -> Iterator[Figure]:
    yield _figure(bench, "noop_rate", agents=2, slots=1)


def measure_one_agent(bench: Bench) -> Iterator[Figure]:
    yield _figure(bench, "noop_rate_1_agent", agents=1, slots=2)


def measure_four_agents(bench: Bench) -> Iterator[Figure]:
    yield _figure(bench, "noop_rate_4_agents", agents=4, slots=1)


def _figure(bench: Bench, name: str, *, agents: int, slots: int) -> Figure:
    directory = bench.scratch(name)
    rates: list[float] = []
    coordinator_us: list[float] = []
    agents_us: list[float] = []
    with ExitStack() as stack:
        limit = stack.enter_context(spawn_limit(directory))
        on = stack.enter_context(coordinator(directory))
        programs = [
            stack.enter_context(agent(on, f"agent-{number}", slots=slots)) for number in range(agents)
        ]
        containment = sorted(set(ready_nodes(on.client).values()))
        _rate(on, _WARM)
        for number in range(bench.rounds):
            limit.sample()
            limit.sample_one()
            before = _cpu_s(on, programs)
            rates.append(_rate(on, INSTANCES))
            after = _cpu_s(on, programs)
            coordinator_us.append((after[0] - before[0]) / INSTANCES * 1e6)
            agents_us.append((after[1] - before[1]) / INSTANCES * 1e6)
            bench.say(f"{name} {number + 1}: {rates[-1]:.0f}/s, limit {limit.rates[-1]:.0f}/s")
        limit.sample()
    return of_rounds(
        name,
        rates,
        unit="instances/s",
        reference=limit.reference,
        limit_one_process=limit.reference_one.value,
        coordinator_cpu_us=median(coordinator_us),
        agents_cpu_us=median(agents_us),
        agents=agents,
        slots_each=slots,
        instances=INSTANCES,
        containment=containment,
    )


def _rate(on: Coordinator, instances: int) -> float:
    """From the submission to the last result, both as the coordinator stored them."""
    job_id = on.client.submit(many("noop", TRUE, instances=instances))
    job = on.end_of(job_id, within_s=_DEADLINE_S)
    if job.ended_at is None:
        raise BenchFailed(f"{job_id} has no end: {job}")
    return instances / (job.ended_at - job.submitted_at).total_seconds()


def _cpu_s(on: Coordinator, agents: list[Program]) -> tuple[float, float]:
    """Keepers and commands are not in it: the agents do not wait for them."""
    return on.program.cpu_s(), sum(program.cpu_s() for program in agents)
