"""Coordination alone: a real coordinator and agents of the protocol that start no process.

The job is submitted before the agents begin, so the rate counts from its first claim to its last result as
the coordinator stored them, and submission is not in it (it has a figure of its own).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from benchmarks.bench import Bench
from benchmarks.figure import Figure, of_rounds
from benchmarks.programs import BenchFailed, Program, running
from benchmarks.spawn_limit import SpawnLimit, spawn_limit
from benchmarks.system import TRUE, Coordinator, coordinator, many, single_tasks
from tests.support.postgres import own_server
from windlass import JobSpec

AGENTS = 2
CAP = 512
INSTANCES = 40_000
SINGLE_TASKS = 10_000
_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    rate: float
    coordinator_cpu_us: float
    """Per instance."""
    agents_cpu_us: float


def measure(bench: Bench) -> Iterator[Figure]:
    spec = many("null", TRUE, instances=INSTANCES)
    yield _figure(bench, "null_rate", spec, instances=INSTANCES)


def measure_one_instance(bench: Bench) -> Iterator[Figure]:
    spec = single_tasks("null-single", TRUE, tasks=SINGLE_TASKS)
    yield _figure(bench, "null_rate_one_instance", spec, instances=SINGLE_TASKS)


def measure_postgres(bench: Bench) -> Iterator[Figure]:
    spec = many("null", TRUE, instances=INSTANCES)
    with own_server(fsync=True) as server:
        yield _figure(bench, "postgres_null", spec, instances=INSTANCES, store=server.new_database())


def _figure(bench: Bench, name: str, spec: JobSpec, *, instances: int, store: str = "") -> Figure:
    directory = bench.scratch(name)
    with ExitStack() as stack:
        limit = stack.enter_context(spawn_limit(directory))
        on = stack.enter_context(coordinator(directory, store=store))
        agents = [null_agent(stack, on, f"null-{number}") for number in range(AGENTS)]
        one_round(on, agents, many("warm", TRUE, instances=2000), instances=2000)
        rounds = list(_rounds(bench, name, lambda: one_round(on, agents, spec, instances=instances), limit))
    return of_rounds(
        name,
        [one.rate for one in rounds],
        unit="instances/s",
        reference=limit.reference,
        coordinator_cpu_us=median(one.coordinator_cpu_us for one in rounds),
        agents_cpu_us=median(one.agents_cpu_us for one in rounds),
        agents=AGENTS,
        cap=CAP,
        instances=instances,
    )


def _rounds(bench: Bench, name: str, run: Callable[[], Round], limit: SpawnLimit) -> Iterator[Round]:
    limit.sample()
    for number in range(bench.rounds):
        one = run()
        limit.sample()
        bench.say(f"{name} {number + 1}: {one.rate:.0f}/s, {one.coordinator_cpu_us:.1f} us of coordinator")
        yield one


def null_agent(stack: ExitStack, on: Coordinator, name: str) -> Program:
    arguments = ["benchmarks.null_agent", "--coordinator", on.address, "--name", name, "--cap", str(CAP)]
    program = stack.enter_context(running(name, arguments, directory=on.directory.parent, talks=True))
    program.tell(on.join_token())
    program.hear()
    return program


def one_round(on: Coordinator, agents: Sequence[Program], spec: JobSpec, *, instances: int) -> Round:
    job_id = on.client.submit(spec)
    cpu_s, agents_cpu_s = on.program.cpu_s(), sum(agent.cpu_s() for agent in agents)
    for agent in agents:
        agent.tell("go")
    done = sum(int(agent.hear()) for agent in agents)
    cpu_s, agents_cpu_s = on.program.cpu_s() - cpu_s, sum(agent.cpu_s() for agent in agents) - agents_cpu_s
    job = on.end_of(job_id, within_s=_DEADLINE_S)
    if done != instances or job.started_at is None or job.ended_at is None:
        raise BenchFailed(f"{done} instances were done where {instances} were submitted: {job}")
    return Round(
        rate=instances / (job.ended_at - job.started_at).total_seconds(),
        coordinator_cpu_us=cpu_s / instances * 1e6,
        agents_cpu_us=agents_cpu_s / instances * 1e6,
    )
