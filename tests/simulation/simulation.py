"""One run: a world made from a seed, chaos, healing, and everything checked."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import structlog

from tests.simulation.checks import Checks, Memory
from tests.simulation.coordinator import Coordinator
from tests.simulation.coverage import Coverage
from tests.simulation.ledger import Ledger
from tests.simulation.liveness import why_not_quiet
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.observed import observed
from tests.simulation.settings import CHAOS_S, HEALED_S, IDLE_S, WORKED_OFF_S
from tests.simulation.store import Order
from tests.simulation.users import User, make_work
from tests.simulation.world import Clock, SimulationFailure, World
from windlass_coordinator.stores.base import Transaction
from windlass_coordinator.stores.machines import Credential
from windlass_proto import failpoints
from windlass_proto.model.ids import DEFAULT_CLUSTER, DEFAULT_TENANT
from windlass_proto.model.status import NodeFacts

_IN_MEMORY = Path("/dev/shm")
_LOOK_EVERY_S = 1.0
_RESUME_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    seed: int
    digest: int
    events: int
    virtual_s: float
    coverage: Coverage
    failure: str = ""
    trace: str = ""


class Simulation:
    def __init__(
        self, seed: int, root: Path, coverage: Coverage, only: tuple[str, ...] | None = None
    ) -> None:
        self.world = World(Random(seed))
        rng = self.world.rng
        self.network = Network(self.world)
        self.ledger = Ledger(self.world)
        self.coordinator = Coordinator(
            self.world, self.network, Clock(rate=rng.uniform(0.998, 1.002)), log_root=root / "logs"
        )
        self.coverage = coverage
        self.checks = Checks(self.world, self.coordinator.store, self.ledger, self.coverage)
        self.coordinator.on_commit = self.checks.after_commit
        self._restores = 0
        self.user = User(self.world, self.network, self.ledger)
        self._prepare_store()
        self.nodes = [self._node(number, root) for number in range(rng.choice((2, 3, 3, 4)))]
        self._start_coordinator()
        for node in self.nodes:
            self.world.after(rng.uniform(0.0, 3.0), node.boot)
        make_work(self.user, rng, chaos_s=CHAOS_S)
        self.nemesis = Nemesis(self, only)

    def _prepare_store(self) -> None:
        """Before the first start: a cluster."""
        self._change_store(
            lambda tx: tx.add_cluster(
                DEFAULT_TENANT, DEFAULT_CLUSTER, description="", now=self.coordinator.wall()
            )
        )
        self._add_join_token("token-0")

    def _add_join_token(self, token_id: str) -> None:
        """Every machine may join with it; a restore makes it void."""

        def verb(tx: Transaction) -> None:
            token = Credential(
                token_id=token_id,
                kind="wlj",
                digest="digest",
                tenant=DEFAULT_TENANT,
                cluster_key=tx.cluster_key(DEFAULT_TENANT, DEFAULT_CLUSTER),
                uses_left=1_000_000,
            )
            tx.add_credential(token, now=self.coordinator.wall())

        self._change_store(verb)

    def _change_store(self, verb: Callable[[Transaction], object]) -> None:
        def refused(error: Exception) -> None:
            raise error

        done = self.coordinator.store.commit([Order(verb, lambda _: None, refused, "setup")], None)
        for outcome in done.outcomes:
            outcome()

    def _node(self, number: int, root: Path) -> Node:
        rng = self.world.rng
        slots = rng.choice((1, 2, 2, 4)) if number else 2
        facts = NodeFacts(
            name=f"n{number}",
            slots=slots,
            cpu=float(slots),
            memory_bytes=1 << 30,
            gpus=rng.choice((0, 1, 2)) if number else 2,
            agent_version="1",
            os="Linux",
            containment="none",
        )
        clock = Clock(rate=rng.uniform(0.995, 1.005), boot_offset_s=rng.uniform(0.0, 1e5))
        return Node(
            self.world,
            self.network,
            self.ledger,
            name=f"n{number}",
            root=root,
            facts=facts,
            clock=clock,
            join_token="token-0",
        )

    def _start_coordinator(self) -> None:
        self.coordinator.start()
        self.coordinator.on_death.append(self._coordinator_died)

    def _coordinator_died(self) -> None:
        def restart() -> None:
            if not self.coordinator.is_alive:
                self._start_coordinator()

        rng = self.world.rng
        delay = rng.uniform(*rng.choice(((0.1, 1.0), (1.0, 6.0), (5.0, 25.0))))
        self.world.after(min(delay, 1.0) if self.world.now > CHAOS_S else delay, restart)

    def restored(self, taken_at: float, memory: Memory) -> None:
        """The database is an older one: its operator makes a new join token."""
        self.ledger.restored(taken_at)
        self.checks.restored(memory)
        self._restores += 1
        self._add_join_token(f"token-{self._restores}")
        for node in self.nodes:
            node.join_token = f"token-{self._restores}"

    def run(self) -> None:
        """Raises SimulationFailure."""
        self.world.run_until(CHAOS_S)
        self.nemesis.end()
        self._heal()
        self._come_to_an_end()
        self.checks.at_the_end(self.coordinator.logs)

    def _come_to_an_end(self) -> None:
        """One node that is left may have much to do: while commands end, there is still time."""
        healed_at = progress_at = self.world.now
        ended = 0
        while why := why_not_quiet(self):
            self.world.run_until(self.world.now + _LOOK_EVERY_S)
            if len(self.ledger.exits) > ended:
                ended, progress_at = len(self.ledger.exits), self.world.now
            since_s = self.world.now - healed_at
            if since_s > WORKED_OFF_S or (since_s > HEALED_S and self.world.now - progress_at > IDLE_S):
                raise SimulationFailure(f"not over {since_s:g} s after the last fault: {why}")

    def _heal(self) -> None:
        self.world.note("healed")
        self.user.path.heal()
        self.coordinator.store.is_full = False
        self.coordinator.paused_until = 0.0
        self.coordinator.cut_power_in_next_commit = False
        for node in self.nodes:
            node.heal()
        self._resume_nodes()

    def _resume_nodes(self) -> None:
        """Operators let all nodes work again, for as long as there are some that do not."""
        stopped = self.coordinator.store.rows(
            "SELECT node_id FROM nodes WHERE wish <> '' AND state <> 'GONE'"
        )
        for (node_id,) in stopped:
            self.user.operate(node_id, "resume")
        self.world.after(_RESUME_EVERY_S, self._resume_nodes)

    def close(self) -> None:
        for node in self.nodes:
            node.agent.die()
        self.coordinator.die()
        self.coordinator.store.close()


def run_seed(seed: int, *, only: tuple[str, ...] | None = None, trace_lines: int = 150) -> Outcome:
    """The whole of one seed; a failure is in the outcome. `only`: with these faults, see `Nemesis`."""
    coverage = Coverage()
    with _quiet(), _directory() as root, observed(coverage):
        simulation = Simulation(seed, root, coverage, only)
        simulation.world.install()
        failure = ""
        try:
            simulation.run()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the finding
            failure = f"{type(error).__name__}: {error}"
            if not isinstance(error, SimulationFailure):
                failure += "\n" + _where(error)
        finally:
            failpoints.install(None)
            world = simulation.world
            outcome = Outcome(
                seed=seed,
                digest=world.trace.digest,
                events=world._count,
                virtual_s=world.now,
                coverage=coverage,
                failure=failure,
                trace=world.trace.text(trace_lines) if failure else "",
            )
            coverage.failpoints.update(world.reached)
            simulation.close()
    return outcome


def _where(error: Exception) -> str:
    import traceback

    return "".join(traceback.format_exception(error)[-6:])


@contextmanager
def _directory() -> Iterator[Path]:
    root = Path(
        tempfile.mkdtemp(prefix="windlass-simulation-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)
    )
    try:
        yield root
    finally:
        shutil.rmtree(root)


@contextmanager
def _quiet() -> Iterator[None]:
    """What agents log would be most of the output."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)
