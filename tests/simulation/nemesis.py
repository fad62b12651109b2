"""What goes wrong. Each run has its own choice of faults and rates, so that rare pairs meet often."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.checks import Memory
from tests.simulation.network import Direction
from tests.simulation.node import Node

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

_FAILPOINTS = (
    "coord.commit.after_commit",
    "coord.submit.before_commit",
    "coord.claim.before_commit",
    "coord.claim.after_commit",
    "coord.report.before_commit",
    "coord.report.after_commit",
    "coord.session.before_commit",
    "coord.session.after_commit",
    "coord.stop.before_commit",
    "coord.stop.after_commit",
    "coord.release.before_commit",
    "coord.release.after_commit",
    "coord.submit.after_commit",
    "coord.log.after_write",
    "coord.log.after_gap",
    "coord.log.after_sync",
    "agent.intent.after_write",
    "agent.poll.after_accept",
    "agent.session.after_reply",
    "agent.report.after_reply",
    "agent.heartbeat.after_reply",
    "agent.handover.before",
    "agent.handover.after",
    "agent.exit.before_report",
    "agent.forget.before_write",
    "agent.forget.after_write",
    "agent.adopt.after_slots",
    "agent.adopt.before_strangers",
    "agent.adopt.after",
    "agent.leave.before",
    "agent.prepare.after_steps",
    "agent.finalize.after_steps",
    "keeper.intent.after_write",
    "keeper.start.before_exec",
    "keeper.start.after_write",
    "keeper.exit.after_write",
)


@dataclass(frozen=True, slots=True)
class Backup:
    content: bytes
    logs: Path
    taken_at: float
    memory: Memory


class Nemesis:
    def __init__(self, simulation: "Simulation", only: tuple[str, ...] | None) -> None:
        """`only`: these faults and no failpoints; None = as chance has it."""
        self._sim = simulation
        self._world, self._rng = simulation.world, simulation.world.rng
        self._is_over = False
        self._backup: Backup | None = None
        self._kills = self._choose_failpoints() if only is None else {}
        self._world.kill_probability = lambda name: self._kills.get(name, 0.0)
        faults = [fault for fault in self._faults() if self._rng.random() < 0.4]
        self._mean_s = self._rng.choice((1.0, 3.0, 8.0))
        if only is not None:
            faults, self._mean_s = [getattr(self, name) for name in only], self._rng.choice((1.0, 8.0))
        self._faults_chosen = faults
        self._world.note(
            "faults", [fault.__name__ for fault in faults], self._mean_s, sorted(self._kills.items())
        )
        if faults:
            self._later()

    def _choose_failpoints(self) -> dict[str, float]:
        if self._rng.random() < 0.3:
            return {}
        chosen = self._rng.sample(_FAILPOINTS, self._rng.choice((1, 2, 4, 8)))
        return {name: self._rng.choice((0.01, 0.05, 0.3)) for name in chosen}

    def _faults(self) -> tuple[Callable[[], None], ...]:
        return (
            self.kill_coordinator,
            self.cut_coordinator_power,
            self.pause_coordinator,
            self.fill_coordinator_disk,
            self.jump_wall_clock,
            self.take_backup_and_restore,
            self.kill_agent,
            self.stop_agent_for_long,
            self.pause_agent,
            self.kill_keeper,
            self.pause_keeper,
            self.reboot,
            self.lose_machine,
            self.wipe,
            self.fill_node_disk,
            self.preempt,
            self.operate,
            self.partition,
            self.isolate,
            self.cut_one_way,
            self.be_lossy,
            self.be_slow,
            self.swizzle_clog,
        )

    def _later(self) -> None:
        self._world.after(self._rng.expovariate(1.0 / self._mean_s), self._strike)

    def _strike(self) -> None:
        if not self._is_over:
            self._rng.choice(self._faults_chosen)()
            self._later()

    def end(self) -> None:
        """The chaos is over: what was broken is mended."""
        self._is_over = True
        self._world.kill_probability = lambda _: 0.0

    # The coordinator

    def kill_coordinator(self) -> None:
        self._sim.coordinator.die()

    def cut_coordinator_power(self) -> None:
        coordinator = self._sim.coordinator
        if not coordinator.is_alive:
            return
        if self._rng.random() < 0.5:
            coordinator.cut_power_in_next_commit = True
        else:
            coordinator.lose_power()

    def pause_coordinator(self) -> None:
        self._sim.coordinator.pause(self._rng.choice((0.5, 4.0, 15.0)))

    def fill_coordinator_disk(self) -> None:
        store = self._sim.coordinator.store
        store.is_full = True
        self._world.note("coordinator's disk full")
        self._world.after(self._rng.uniform(0.5, 8.0), self._free_coordinator_disk)

    def _free_coordinator_disk(self) -> None:
        self._sim.coordinator.store.is_full = False

    def jump_wall_clock(self) -> None:
        clock = self._rng.choice([self._sim.coordinator.clock, *(node.clock for node in self._sim.nodes)])
        clock.wall_offset_s += self._rng.choice((-3600.0, -5.0, 5.0, 10_800.0, 86_400.0))
        self._world.note("wall clock jumped", clock.wall_offset_s)

    def take_backup_and_restore(self) -> None:
        coordinator = self._sim.coordinator
        if self._backup is None or self._rng.random() < 0.6:
            self._backup = self._take_backup()
            self._world.note("backup taken")
            return
        self._world.note("restored", self._backup.taken_at)
        coordinator.die()
        coordinator.store.is_full = False
        coordinator.store.restore(self._backup.content, now=coordinator.wall())
        shutil.rmtree(coordinator.log_root, ignore_errors=True)
        shutil.copytree(self._backup.logs, coordinator.log_root)
        self._sim.restored(self._backup.taken_at, self._backup.memory)

    def _take_backup(self) -> "Backup":
        """The database first, then the logs, as `admin/backup.py` does."""
        coordinator = self._sim.coordinator
        logs = coordinator.log_root.with_name("backup")
        shutil.rmtree(logs, ignore_errors=True)
        shutil.copytree(coordinator.log_root, logs)
        return Backup(coordinator.store.backup(), logs, self._world.now, self._sim.checks.remember())

    # Nodes

    def _some_node(self) -> Node:
        return self._rng.choice(self._sim.nodes)

    def kill_agent(self) -> None:
        self._some_node().agent.die()

    def stop_agent_for_long(self) -> None:
        node = self._some_node()
        node.restart_s = self._rng.choice(((3.0, 8.0), (10.0, 30.0)))
        node.agent.die()

    def pause_agent(self) -> None:
        self._some_node().agent.pause(self._rng.choice((0.5, 5.0, 20.0)))

    def _some_keeper(self):  # type: ignore[no-untyped-def]  # Keeper | None
        keepers = [k for node in self._sim.nodes for k in node.keepers if k is not None and k.is_alive]
        return self._rng.choice(keepers) if keepers else None

    def kill_keeper(self) -> None:
        keeper = self._some_keeper()
        if keeper is not None:
            keeper.die()

    def pause_keeper(self) -> None:
        keeper = self._some_keeper()
        if keeper is not None:
            keeper.pause(self._rng.choice((0.5, 5.0)))

    def reboot(self) -> None:
        self._some_node().crash(back_after_s=self._rng.choice((1.0, 5.0, 20.0)))

    def lose_machine(self) -> None:
        if sum(not node.is_gone for node in self._sim.nodes) > 2 and self._rng.random() < 0.3:
            # The first one has room for everything.
            self._rng.choice(self._sim.nodes[1:]).crash(back_after_s=None)

    def wipe(self) -> None:
        if self._rng.random() < 0.3:
            self._some_node().wipe()

    def preempt(self) -> None:
        node = self._rng.choice(self._sim.nodes[1:])
        is_one_of_many = sum(not node.is_gone for node in self._sim.nodes) > 2
        if is_one_of_many and node.agent.is_alive and self._rng.random() < 0.5:
            within_s = self._rng.choice((1.0, 5.0, 20.0))
            node.agent.preempt(within_s)
            self._world.after(within_s, node.left)

    def operate(self) -> None:
        """Somebody drains a node, or lets it work again."""
        node = self._some_node()
        node_id = node.disk.identity.node_id
        if node_id:
            within_s = self._rng.choice((None, 0.0, 3.0, 15.0))
            self._sim.user.operate(node_id, self._rng.choice(("drain", "drain", "resume")), within_s)

    def fill_node_disk(self) -> None:
        node = self._some_node()
        node.is_disk_full = True
        self._world.after(self._rng.uniform(1.0, 10.0), lambda: setattr(node, "is_disk_full", False))

    # The network

    def _some_ways(self) -> list[Direction]:
        path = self._some_node().path
        return self._rng.choice(([path.there, path.back], [path.there], [path.back]))

    def partition(self) -> None:
        path = self._some_node().path
        self._cut([path.there, path.back])

    def isolate(self) -> None:
        """A node is cut off for longer than its attempts are waited for."""
        path = self._some_node().path
        for way in (path.there, path.back):
            way.cut_until = self._world.now + 30.0

    def cut_one_way(self) -> None:
        self._cut([self._rng.choice((self._some_node().path.there, self._some_node().path.back))])

    def _cut(self, ways: list[Direction]) -> None:
        seconds = self._rng.choice((1.0, 5.0, 10.0, 25.0))
        self._world.note("cut", len(ways), seconds)
        for way in ways:
            way.cut_until = max(way.cut_until, self._world.now + seconds)

    def be_lossy(self) -> None:
        for way in (*self._some_ways(), self._sim.user.path.there, self._sim.user.path.back):
            way.drop, way.double = self._rng.choice((0.0, 0.05, 0.3)), self._rng.choice((0.0, 0.1, 0.3))

    def be_slow(self) -> None:
        for way in self._some_ways():
            way.delay_s = self._rng.choice(((0.0002, 0.002), (0.001, 0.3), (0.5, 3.0), (0.001, 12.0)))

    def swizzle_clog(self) -> None:
        """Links stop one by one, and go on in random order."""
        begin = self._world.now
        for node in self._sim.nodes:
            until = begin + self._rng.uniform(2.0, 12.0)
            start = self._rng.uniform(0.0, 2.0)
            self._world.after(start, lambda node=node, until=until: _clog(node, until))


def _clog(node: Node, until: float) -> None:
    node.path.there.clogged_until = until
    node.path.back.clogged_until = until
