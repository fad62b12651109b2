"""A fleet of idle agents on one coordinator: what each costs, how soon one is woken, how all come back.

The agents speak the protocol over connections of their own (`fleet_agents`), from two processes beside the
coordinator on the same two cores; what they cost is not in the coordinator's figures, but it is in the times.
"""

import json
import os
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, Queue
from secrets import token_bytes, token_hex
from statistics import median
from threading import Thread

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Reference, of_rounds, of_samples, quantile
from benchmarks.fleet_agents import HELD_TASK
from benchmarks.latency import round_trips_ms
from benchmarks.programs import BenchFailed, Program, await_condition, running
from benchmarks.system import TRUE, coordinator, many
from windlass import Argv, BlockingClient, JobSpec, Profile, TaskSpec
from windlass_coordinator.auth.tokens import RANDOM_BYTES, TokenKind, new_token
from windlass_coordinator.engine.clusters import NewJoinToken, create_join_token
from windlass_coordinator.engine.session import NewNode, join
from windlass_coordinator.stores import open_store
from windlass_coordinator.stores.base import Transaction
from windlass_proto.model.ids import DEFAULT_CLUSTER, DEFAULT_TENANT, JobId, NodeId, TaskName
from windlass_proto.model.states import NodeState
from windlass_proto.model.status import NodeFacts

SIZES = tuple(int(size) for size in os.environ.get("FLEET", "500,2000,10000").split(","))
"""How many agents, growing; the goals are for the largest."""
_PROCESSES = 2
_JOINED_PER_VERB = 500
_START_S = 60.0
_PATIENCE_S = 300.0
_IDLE_S = float(os.environ.get("FLEET_IDLE_S", "45"))
"""Longer than a poll is parked and than two heartbeats, so that the window holds all that idling costs."""
_WAKES = 300
_WARM = 20
_SUBMITS_BEYOND = 20
_WAKE_PAUSE_S = 0.02
_HELD = 200
_SUBMIT_EVERY_S = 0.1
_LOOK_EVERY_S = 0.25
_POLLS = 'windlass_bound_used{bound="polls"}'


class _Agents:
    """The processes of the fleet; a thread for each listens to what it says by itself."""

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs
        self._answers: list[Queue[list[str]]] = [Queue() for _ in programs]
        self._work: Queue[list[str]] = Queue()
        for program, answers in zip(programs, self._answers, strict=True):
            Thread(target=self._listen, args=(program, answers), daemon=True).start()

    def _listen(self, program: Program, answers: "Queue[list[str]]") -> None:
        with suppress(BenchFailed, ValueError):  # it has ended
            while True:
                words = program.hear().split()
                (self._work if words[0] == "work" else answers).put(words)

    def all_answer(self, line: str) -> list[list[str]]:
        for program in self._programs:
            program.tell(line)
        return [_next(answers, f"an answer to {line}") for answers in self._answers]

    def hear_work(self, job_id: JobId) -> int:
        """When one of the agents got the instance of this job, in nanoseconds."""
        while True:
            _, at_ns, job = _next(self._work, f"that an agent is woken for {job_id}")
            if job == job_id:
                return int(at_ns)

    def connect(self, count: int) -> None:
        self.all_answer(f"connect {count // len(self._programs)}")


def _next(lines: "Queue[list[str]]", what: str) -> list[str]:
    try:
        return lines.get(timeout=_PATIENCE_S)
    except Empty:
        raise BenchFailed(f"{what}: not within {_PATIENCE_S:g} s") from None


def measure(bench: Bench) -> Iterator[Figure]:
    directory = bench.scratch("fleet")
    identities = _prepared(directory, max(SIZES))
    bare_cores = _bare_cores(bench, identities, max(SIZES))
    with ExitStack() as stack:
        on = _Restartable(directory)
        stack.callback(on.end)
        on.start()
        fleet = _connecting(stack, on.address, identities)
        steps = [_grown(bench, on, fleet, size) for size in SIZES]
        yield from _idle_figures(steps, bare_cores=bare_cores)
        yield _wake_figure(bench, on, fleet)
        yield _restart_figure(bench, on, fleet)


# -- a coordinator that is started again where it was


class _Restartable:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._data = directory / "coordinator"
        self._listen = "127.0.0.1:0"
        self._stack = ExitStack()
        self.program: Program
        self.bare_kib = 0
        """What it takes without an agent."""

    @property
    def address(self) -> str:
        return self._listen

    def client(self) -> BlockingClient:
        return BlockingClient(Profile(coordinator=self.address, token_file=self._data / "admin.token"))

    def start(self) -> None:
        ready = self._data / "coordinator.json"
        ready.unlink(missing_ok=True)
        arguments = ["windlass_coordinator.app", "--data", str(self._data), "--log-level", "warning"]
        self.program = self._stack.enter_context(
            running(
                "coordinator",
                [*arguments, "--listen", self._listen, "--http", "127.0.0.1:0"],
                directory=self.directory,
            )
        )
        await_condition("the coordinator starts", ready.exists, within_s=_START_S, program=self.program)
        self._listen = json.loads(ready.read_text())["grpc"]
        self.bare_kib = self.program.rss_kib()

    def until_polled_by(self, agents: int) -> float:
        """When so many polls were parked, in seconds."""
        give_up_s = time.monotonic() + _PATIENCE_S
        while self._polls() < agents:
            if time.monotonic() > give_up_s:
                raise BenchFailed(f"{agents} agents are not back within {_PATIENCE_S:g} s")
            time.sleep(_LOOK_EVERY_S)
        return time.monotonic()

    def _polls(self) -> float:
        url = "http://" + json.loads((self._data / "coordinator.json").read_text())["http"] + "/metrics"
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(_POLLS):
                    return float(line.split()[-1])
        raise BenchFailed(f"{url} does not tell of {_POLLS}")

    def kill(self) -> None:
        os.kill(self.program.pid, 9)
        self._stack.close()
        self._stack = ExitStack()

    def end(self) -> None:
        self._stack.close()


def _connecting(stack: ExitStack, address: str, identities: Path) -> _Agents:
    return _Agents([_agents(stack, address, identities, share) for share in range(_PROCESSES)])


def _agents(stack: ExitStack, address: str, identities: Path, share: int) -> Program:
    arguments = [
        *("benchmarks.fleet_agents", "--coordinator", address, "--identities", str(identities)),
        *("--share", str(share), "--of", str(_PROCESSES)),
    ]
    name = f"agents-{share}"
    return stack.enter_context(running(name, arguments, directory=identities.parent, talks=True))


# -- nodes that have joined


def _prepared(directory: Path, count: int) -> Path:
    """A data directory whose nodes have joined already, and a file of who they are."""
    with coordinator(directory):
        pass
    identities = directory / "identities"
    store = open_store(f"sqlite:///{directory / 'coordinator' / 'windlass.db'}")
    try:
        token = NewJoinToken(
            kind=TokenKind.JOIN.value,
            token_id=token_hex(8),
            digest="",
            cluster=DEFAULT_CLUSTER,
            uses=count,
            valid_for=timedelta(hours=1),
        )
        now = datetime.now(UTC)
        store.run_now(lambda tx: create_join_token(tx, DEFAULT_TENANT, token, now=now))
        with identities.open("w") as file:
            for begin in range(0, count, _JOINED_PER_VERB):
                some = range(begin, min(count, begin + _JOINED_PER_VERB))
                made = store.run_now(lambda tx, some=some: _joined(tx, token.token_id, some, now))
                file.writelines(json.dumps(one) + "\n" for one in made)
    finally:
        store.close()
    return identities


def _joined(tx: Transaction, token_id: str, numbers: range, now: datetime) -> list[tuple[str, str]]:
    """Each node's id and its credential."""
    made = []
    for number in numbers:
        secret = new_token(TokenKind.NODE, randomness=token_bytes(RANDOM_BYTES))
        new = NewNode(
            node_id=NodeId(f"node-{token_hex(16)}"),
            credential_kind=secret.kind.value,
            credential_id=secret.token_id,
            credential_digest=secret.digest,
        )
        token = tx.credential(token_id)
        assert token is not None
        facts = NodeFacts(
            name=f"n{number}", slots=1, cpu=1, memory_bytes=1 << 30, agent_version="", os="", containment=""
        )
        join(tx, token, facts, new, now=now)
        made.append((new.node_id, secret.text))
    return made


# -- idle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    agents: int
    connected_s: float
    """From the agents before to all of these."""
    kib_each: float
    idle_cores: float


def _grown(bench: Bench, on: _Restartable, fleet: _Agents, size: int) -> _Step:
    """All that is known of a fleet of this size when nothing of it is busy."""
    begun_s = time.monotonic()
    fleet.connect(size)
    connected_s = time.monotonic() - begun_s
    cores = _cores_while_idle(on.program)
    kib_each = (on.program.rss_kib() - on.bare_kib) / size
    bench.say(
        f"{size} agents: connected in {connected_s:.1f} s, {kib_each:.1f} KiB each, {cores:.3f} cores idle"
    )
    return _Step(agents=size, connected_s=connected_s, kib_each=kib_each, idle_cores=cores)


def _cores_while_idle(program: Program) -> float:
    cpu_s, since_s = program.cpu_s(), time.monotonic()
    time.sleep(_IDLE_S)
    return (program.cpu_s() - cpu_s) / (time.monotonic() - since_s)


def _bare_cores(bench: Bench, identities: Path, size: int) -> float:
    """What the gRPC library alone takes for the calls of as many idle agents."""
    arguments = ["benchmarks.fleet_bare", "--agents", str(size)]
    with ExitStack() as stack:
        bare = stack.enter_context(running("bare", arguments, directory=identities.parent, talks=True))
        _connecting(stack, f"127.0.0.1:{bare.hear()}", identities).connect(size)
        cores = _cores_while_idle(bare)
    bench.say(f"{size} agents: a bare server takes {cores:.3f} cores for their calls")
    return cores


def _idle_figures(steps: Sequence[_Step], *, bare_cores: float) -> Iterator[Figure]:
    """Memory against the smallest fleet, as it is to grow with the number of agents and no faster; processor
    time against a server that does nothing."""
    least, most = steps[0], steps[-1]
    by_size = {str(step.agents): [step.connected_s, step.kib_each, step.idle_cores] for step in steps}
    yield of_rounds(
        "fleet_memory",
        [most.kib_each],
        unit="KiB/agent",
        reference=Reference(name=f"fleet_of_{least.agents}", value=least.kib_each),
        agents=most.agents,
        connected_s=most.connected_s,
        connected_s_kib_cores_by_size=by_size,
    )
    yield of_rounds(
        "fleet_idle_cores",
        [most.idle_cores],
        unit="cores",
        reference=Reference(name="bare_grpc_server", value=bare_cores),
        agents=most.agents,
        idle_s=_IDLE_S,
    )


# -- one is woken


def _wake_figure(bench: Bench, on: _Restartable, fleet: _Agents) -> Figure:
    """From the call of submit until the assignment stands in the agent's socket, commit included."""
    trips_ms = round_trips_ms(on.directory)
    taken_ms = []
    with on.client() as client:
        for number in range(_WAKES + _WARM):
            time.sleep(_WAKE_PAUSE_S)
            begun_ns = time.monotonic_ns()
            job_id = client.submit(many("wake", TRUE, instances=1))
            came_ns = fleet.hear_work(job_id)
            if number >= _WARM:
                taken_ms.append((came_ns - begun_ns) / 1e6)
    trips_ms += round_trips_ms(on.directory)
    reference = Reference(name="grpc_round_trip_ms", value=median(trips_ms))
    figure = of_samples("fleet_wake_ms", taken_ms, unit="ms", reference=reference, agents=max(SIZES))
    bench.say(f"woken: p50 {figure.extra['p50']:.2f} ms, p99 {figure.extra['p99']:.2f} ms")
    return figure


# -- all come back


def _restart_figure(bench: Bench, on: _Restartable, fleet: _Agents) -> Figure:
    """kill -9 while some attempts run; users submit meanwhile."""
    held = _hold(on)
    before_kib = on.program.rss_kib()
    killed_s = time.monotonic()
    on.kill()
    on.start()
    ready_s = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        back = threads.submit(on.until_polled_by, max(SIZES))
        submits_s = list(_submits(on, back))
        back_s = back.result()
    after_kib = on.program.rss_kib()
    lost = _lost(on, held)
    fleet.all_answer("finish")
    submits_s.sort()
    bench.say(f"all back {back_s - killed_s:.1f} s after kill -9, {lost} lost")
    return of_rounds(
        "fleet_restart",
        [back_s - killed_s],
        unit="s",
        reference=Reference(name="coordinator_starts_s", value=ready_s - killed_s),
        agents=max(SIZES),
        false_losses=lost,
        held=_HELD,
        submits=len(submits_s),
        submit_p50_ms=quantile(submits_s, 0.5) * 1e3,
        submit_p99_ms=quantile(submits_s, 0.99) * 1e3,
        rss_mib_before_after=[before_kib / 1024, after_kib / 1024],
    )


def _hold(on: _Restartable) -> JobId:
    """A job of which every instance runs on an agent."""
    task = TaskSpec(name=TaskName(HELD_TASK), command=Argv(args=TRUE), instances=_HELD)
    with on.client() as client:
        job_id = client.submit(JobSpec(name="hold", tasks=(task,)))
        await_condition(
            f"{_HELD} instances run",
            lambda: client.get(job_id).tasks[0].counts.active == _HELD,
            within_s=_START_S,
            program=on.program,
        )
    return job_id


def _submits(on: _Restartable, back: Future[float]) -> Iterator[float]:
    """How long each took while the agents came back, and a little beyond."""
    with on.client() as client:
        left = _SUBMITS_BEYOND
        while left:
            left -= back.done()
            begun_s = time.monotonic()
            client.submit(many("meanwhile", TRUE, instances=1))
            yield time.monotonic() - begun_s
            time.sleep(_SUBMIT_EVERY_S)


def _lost(on: _Restartable, held: JobId) -> int:
    """Nodes that are not ready, and attempts that were replaced: there is no reason for any."""
    with on.client() as client:
        nodes = sum(node.state is not NodeState.READY for node in client.nodes(include_gone=True))
        attempts = sum(one.attempts[-1].attempt - 1 for one in client.instances(held))
    return nodes + attempts
