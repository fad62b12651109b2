"""A machine with an agent: its disk, its keepers, its service manager, and what can happen to it."""

from functools import partial
from pathlib import Path

from tests.simulation.agent import Agent
from tests.simulation.disk import Disk
from tests.simulation.keeper import Command, Keeper
from tests.simulation.ledger import Ledger
from tests.simulation.network import Direction, Network
from tests.simulation.network import Path as NetworkPath
from tests.simulation.world import Clock, World
from windlass_proto.model.status import NodeFacts

_RESTART_S = (0.1, 1.0)
"""The service manager starts a dead agent again."""


class Node:
    def __init__(
        self,
        world: World,
        network: Network,
        ledger: Ledger,
        *,
        name: str,
        root: Path,
        facts: NodeFacts,
        clock: Clock,
        join_token: str,
    ) -> None:
        self.world, self.network, self.ledger = world, network, ledger
        self.name, self.facts, self.clock, self.join_token = name, facts, clock, join_token
        self.path = NetworkPath(Direction(), Direction())
        self._root = root
        self._boots = self._wipes = 0
        self.commands: list[Command] = []
        self.keepers: list[Keeper | None] = [None] * facts.slots
        self.is_up = False
        self.is_gone = False
        """Its machine will never come back."""
        self.is_disk_full = False
        self.restart_s = _RESTART_S
        self.denials: list[str] = []
        self.disk = self._new_disk()
        self.agent = Agent(self, network)
        self.boot_id = ""

    def _new_disk(self) -> Disk:
        self._wipes += 1
        return Disk(
            self._root / f"{self.name}.{self._wipes}",
            state_id=f"state-{self.name}-{self._wipes}",
            slots=self.facts.slots,
        )

    def boot(self) -> None:
        if self.is_up or self.is_gone:
            return
        self._boots += 1
        self.boot_id = f"boot-{self.name}-{self._boots}"
        self.is_up = True
        self.world.note("booted", self.name, self.boot_id)
        self.start_agent()

    def start_agent(self) -> None:
        if self.is_up and not self.agent.is_alive:
            self.agent.start()
            self.agent.on_death.append(self._restart_agent)

    def _restart_agent(self) -> None:
        delay = self.world.rng.uniform(*self.restart_s)
        boot_id = self.boot_id
        self.world.after(delay, lambda: self.start_agent() if boot_id == self.boot_id else None)

    def start_keeper(self, number: int) -> Keeper:
        keeper = Keeper(self, number)
        keeper.start()
        self.keepers[number] = keeper
        return keeper

    def denied(self, why: str) -> None:
        """Its agent may not open a session. Who joined after the backup that was restored joins again."""
        self.world.note("denied", self.name, why)
        self.denials.append(why)
        if "join again" in why:
            self.world.after(1.0, self.wipe)

    def left(self) -> None:
        """Its agent has said good-bye, and the machine goes away for good."""
        self.crash(back_after_s=None)

    # What can happen to it

    def crash(self, *, back_after_s: float | None) -> None:
        """The machine stops at once; `None` = for ever."""
        if not self.is_up:
            return
        self.world.note("machine down", self.name, back_after_s)
        self.is_up = False
        self.agent.die()
        for keeper in self.keepers:
            if keeper is not None:
                keeper.die()
        for command in self.commands:
            command.die()
        self.commands = []
        self.keepers = [None] * self.facts.slots
        self._cut_intents()
        if back_after_s is None:
            self.is_gone = True
        else:
            self.world.after(back_after_s, self.boot)

    def _cut_intents(self) -> None:
        """Nothing on a node is synced (decision D6): a power loss may take the end of any file."""
        file = self.disk.intents
        if file.exists() and self.world.rng.random() < 0.5:
            size = file.stat().st_size
            with file.open("r+b") as opened:
                opened.truncate(self.world.rng.randint(max(0, size - 400), size))
            self.ledger.intents_torn(self)
        if self.world.rng.random() < 0.3:
            for journal in self.disk.journals:
                for segment in journal.segments[-1:]:
                    for ref in segment.begun[-1:]:
                        segment.ends.pop(ref, None)

    def wipe(self) -> None:
        """Somebody deletes the state directory while things run: it comes back as a new node."""
        self.world.note("wiped", self.name)
        self.agent.die()
        for keeper in self.keepers:
            if keeper is not None:
                keeper.die()
        # The next agent finds groups without a slot and ends what is in them.
        for command in self.commands:
            command.die()
        self.commands = []
        self.keepers = [None] * self.facts.slots
        self.ledger.disk_wiped(self)
        self.disk = self._new_disk()

    def heal(self) -> None:
        self.path.heal()
        self.is_disk_full = False
        self.agent.paused_until = 0.0
        for keeper in self.keepers:
            if keeper is not None:
                keeper.paused_until = 0.0
        self.restart_s = _RESTART_S
        if not self.is_gone:
            self.world.after(0.5, self.boot)
            self.world.after(0.6, partial(self.start_agent))
