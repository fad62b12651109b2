"""Keepers and the commands they start: scripts of what `windlass_agent/keeper` does with processes."""

from collections import deque
from collections.abc import Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from tests.simulation.disk import SlotJournal, SpoolWriter
from tests.simulation.scripts import read_script
from tests.simulation.world import Process
from windlass_agent.core.run_plan import CommandPlan, KeeperRecord, Lease, StartRecord
from windlass_agent.spool.keeper_records import read_exit
from windlass_proto import failpoints
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import LogStream

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.slots import SimulatedSlot

_TELL_S = 0.001
_OUTPUT_STEPS = 3
_SIGTERM, _SIGKILL = 15, 9


class Command(Process):
    """The user's process: it lives on when its keeper is killed, and nobody hears of its end then."""

    def __init__(self, node: "Node", plan: CommandPlan, keeper: "Keeper") -> None:
        super().__init__(node.world, f"command {node.name}", node.clock)
        self.node, self.plan, self.ref, self.keeper = node, plan, plan.ref, keeper
        self.script = read_script(plan.argv)
        self.status = 0
        """As wait() tells it."""
        self.output: dict[LogStream, SpoolWriter] = {}

    def begin(self) -> None:
        self.start()
        self.node.ledger.command_started(self)
        script, ref = self.script, self.ref
        is_bad = script.is_bad(ref.index, ref.attempt) and not script.prepare_fails
        run_s = script.run_s * self.world.rng.uniform(0.7, 1.3)
        steps = _OUTPUT_STEPS if script.out_bytes else 0
        for step in range(steps):
            self.after(run_s * (step + 0.5) / steps, partial(self._write, script.out_bytes // steps))
        if not (is_bad and script.hangs):
            self.after(run_s, partial(self.end, (script.code if is_bad else 0) << 8))

    def signal(self, number: int) -> None:
        if not self.is_alive or (number == _SIGTERM and self.script.ignores_term):
            return
        if number == _SIGKILL:
            self.end(_SIGKILL)
        else:
            self.after(self.world.rng.uniform(0.001, 0.3), partial(self.end, _SIGTERM))

    def end(self, status: int) -> None:
        if self.is_alive:
            self.status = status
            self.die()

    def die(self) -> None:
        if self.is_alive:
            super().die()
            self.node.ledger.command_ended(self)

    def _write(self, length: int) -> None:
        if not self.keeper.is_alive:
            return
        for stream, part in ((LogStream.STDOUT, length), (LogStream.STDERR, length // 2)):
            if part:
                writer = self.output.get(stream)
                if writer is None:
                    directory = self.node.disk.attempt(self.ref)
                    writer = self.output[stream] = SpoolWriter(directory, self.ref, stream)
                (writer.drop if self.node.is_disk_full else writer.write)(part)


class Keeper(Process):
    """One slot's keeper: runs one plan after another, whether or not an agent listens."""

    def __init__(self, node: "Node", number: int) -> None:
        super().__init__(node.world, f"keeper {node.name}.{number}", node.clock)
        self.node, self.number = node, number
        self.boot_id = node.boot_id
        self.queue: deque[CommandPlan] = deque()
        self.command: Command | None = None
        self.cause = ""
        self.agent: SimulatedSlot | None = None
        self.was_paused = False
        self._lease = Lease(until_s=inf, kill_grace_s=inf)
        self._began_s = 0.0

    @property
    def _journal(self) -> SlotJournal:
        return self.node.disk.journals[self.number]

    def pause(self, for_s: float) -> None:
        super().pause(for_s)
        self.was_paused = True

    # What the agent says

    def enqueue(self, plan: CommandPlan) -> None:
        self.queue.append(plan)
        self._advance()

    def stop(self, ref: AttemptRef, grace_s: float | None) -> None:
        if self.command is not None and self.command.ref == ref:
            self._terminate("stop", inf if grace_s is None else grace_s)
            return
        for plan in [plan for plan in self.queue if plan.ref == ref]:
            self.queue.remove(plan)
            self._pass_over(plan, "stop")

    def renew(self, lease: Lease) -> None:
        self._lease = lease
        self._watch_lease()

    # What it does

    def _advance(self) -> None:
        while self.command is None and self.queue:
            self._begin(self.queue.popleft())

    def _outlived_at(self, plan: CommandPlan) -> float:
        return inf if plan.outlive_s is None else self._lease.until_s + plan.outlive_s

    def _forbids_start(self, plan: CommandPlan) -> bool:
        now_s = self.boot_s()
        return now_s >= self._lease.until_s and (plan.work_dir is None or now_s >= self._outlived_at(plan))

    def _begin(self, plan: CommandPlan) -> None:
        if self._forbids_start(plan):
            self._pass_over(plan, "disconnect")
            return
        self._journal.begin(plan.ref, self.boot_id)
        failpoints.reach("keeper.intent.after_write")
        failpoints.reach("keeper.start.before_exec")
        command = Command(self.node, plan, self)
        self.node.commands.append(command)
        self.command, self.cause = command, ""
        command.begin()
        self._began_s = self.boot_s()
        command.on_death.append(lambda: self.world.after(0.0, partial(self._settle, command), self))
        failpoints.reach("keeper.start.after_write")
        self._tell(StartRecord(ref=plan.ref, pid=1, start_ticks=1))
        if plan.timeout_s is not None:
            self.after(plan.timeout_s, partial(self._terminate_if, command, "timeout"))
        self._watch_lease()

    def _watch_lease(self) -> None:
        command = self.command
        if command is None:
            return
        due_s = self._outlived_at(command.plan)
        if due_s < inf:
            self.after(due_s - self.boot_s() + 0.001, partial(self._look_at_lease, command))

    def _look_at_lease(self, command: Command) -> None:
        if self.command is command and self.boot_s() >= self._outlived_at(command.plan):
            self._terminate("disconnect", self._lease.kill_grace_s)

    def _terminate_if(self, command: Command, cause: str) -> None:
        if self.command is command:
            self._terminate(cause)

    def _terminate(self, cause: str, grace_s: float = inf) -> None:
        command = self.command
        if command is None or self.cause:
            return
        self.cause = cause
        command.signal(_SIGTERM)
        self.after(min(command.plan.kill_grace_s, grace_s), lambda: command.signal(_SIGKILL))

    def _settle(self, command: Command) -> None:
        if self.command is not command:
            return
        self.command = None
        self.node.commands.remove(command)
        facts = {
            "status": command.status,
            "us": [int((self.boot_s() - self._began_s) * 1e6), 0, 0],
            "cause": self.cause,
            "timeout_s": command.plan.timeout_s,
            "out": command.output[LogStream.STDOUT].end if LogStream.STDOUT in command.output else 0,
            "err": command.output[LogStream.STDERR].end if LogStream.STDERR in command.output else 0,
        }
        self._record_exit(command.ref, facts)
        self._advance()

    def _pass_over(self, plan: CommandPlan, cause: str) -> None:
        self._journal.begin(plan.ref, self.boot_id)
        self._record_exit(plan.ref, {"cause": cause})

    def _record_exit(self, ref: AttemptRef, facts: Mapping[str, Any]) -> None:
        record = read_exit(dict(facts), ref)
        segment = self._journal.segment_of(ref)
        assert segment is not None
        segment.ends[ref] = record
        self.node.ledger.exit_recorded(self.node, record)
        failpoints.reach("keeper.exit.after_write")
        self._tell(record)

    def _tell(self, record: KeeperRecord) -> None:
        agent = self.agent
        if agent is not None:
            self.world.after(_TELL_S, partial(agent.hear, record), agent.process)
