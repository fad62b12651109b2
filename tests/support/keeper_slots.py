"""A real slot with its keeper, in the machine's own containment, for tests; proves that it leaves nothing."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.left_processes import standing_in
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord, StartRecord
from windlass_agent.runner.cgroups import Containment, find_containment
from windlass_agent.runner.keeper_client import Slot
from windlass_agent.runner.keeper_process import KeeperSettings
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.spool.slot_dir import SlotDir
from windlass_proto.model.events import LostOnNode, PrepareFailed
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

DEADLINE_S = 30.0
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def a_ref(index: int) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(7), index=index, attempt=1, fence=Fence(1 << 40))


@dataclass
class SlotUnderTest:
    """Hands commands to one slot and waits for what comes of them."""

    directory: Path
    containment: Containment
    settings: KeeperSettings
    where: str = "slot"
    records: list[KeeperRecord] = field(default_factory=list)
    lost: list[AttemptRef] = field(default_factory=list)
    lost_as: list[FailureKind] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._heard = asyncio.Event()
        self._next = 0
        self.slot = self._new_slot()

    def _new_slot(self) -> Slot:
        return Slot(
            0,
            directory=self.directory / self.where,
            containment=self.containment,
            on_record=self._on_record,
            on_keeper_lost=self._on_lost,
            settings=self.settings,
        )

    async def restart_agent(self) -> SlotInventory:
        """The agent is gone and comes back: what it had in memory is forgotten, the keeper stays."""
        await self.slot.close(end_keeper=False)
        self.records.clear()
        self.slot = self._new_slot()
        return await self.slot.adopt()

    def hand_over(self, *argv: str, share: str | None = None, **changes: Any) -> AttemptRef:
        ref = a_ref(self._next)
        self._next += 1
        plan: dict[str, Any] = {
            "env": PATH,
            "work_dir": None,
            "output_dir": str(self.output_dir(ref)),
            "timeout_s": None,
            "kill_grace_s": 5.0,
            "memory_bytes": 0,
        }
        self.slot.hand_over(CommandPlan(ref=ref, argv=argv, **(plan | changes)), share=share)
        return ref

    async def run(self, *argv: str, **changes: Any) -> ExitRecord:
        return await self.end_of(self.hand_over(*argv, **changes))

    async def run_shell(self, line: str, **changes: Any) -> ExitRecord:
        return await self.run("/bin/sh", "-c", line, **changes)

    async def end_of(self, ref: AttemptRef) -> ExitRecord:
        return await self._heard_of(ref, ExitRecord)

    async def start_of(self, ref: AttemptRef) -> StartRecord:
        return await self._heard_of(ref, StartRecord)

    async def _heard_of(self, ref: AttemptRef, kind: type[Any]) -> Any:
        def found() -> list[KeeperRecord]:
            return [record for record in self.records if record.ref == ref and isinstance(record, kind)]

        await self.until(
            lambda: bool(found()), f"{kind.__name__} of {ref}; heard {self.records}, lost {self.lost}"
        )
        return found()[0]

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                self._heard.clear()
                await self._heard.wait()
        assert is_so(), what

    def ended(self) -> list[AttemptRef]:
        """Of which an exit record has been heard."""
        return [record.ref for record in self.records if isinstance(record, ExitRecord)]

    def output_dir(self, ref: AttemptRef) -> Path:
        return self.directory / "attempts" / f"{ref.index}"

    def output(self, ref: AttemptRef, stream: str = "stdout") -> bytes:
        segments = sorted(self.output_dir(ref).glob(f"{stream}.[0-9]*"))
        return b"".join(path.read_bytes() for path in segments)

    def keeper_pid(self) -> int:
        return int((self.directory / "slot" / "keeper.lock").read_text())

    def others_in_group(self) -> list[int]:
        """What a command has left behind; without cgroups, what stands in the slot's directory."""
        group = self.containment.slot_groups(0).procs
        if group is None:
            pids = standing_in(self.directory / "slot")
        else:
            pids = [int(line) for line in (group / "cgroup.procs").read_text().split()]
        return [pid for pid in pids if pid != self.keeper_pid()]

    def _on_record(self, record: KeeperRecord) -> None:
        self.records.append(record)
        self._heard.set()

    def _on_lost(self, number: int, refs: tuple[AttemptRef, ...], what: LostOnNode | PrepareFailed) -> None:
        assert number == 0
        self.lost += refs
        self.lost_as += [what.kind for _ in refs]
        self._heard.set()


async def eventually(is_so: Callable[[], bool]) -> None:
    """For what another process does and nobody tells: looks again until the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)


def is_running(pid: int) -> bool:
    """Zombies do not run."""
    return state_of(pid) not in ("Z", "")


def state_of(pid: int) -> str:
    """As the kernel puts it: R, S, T, Z ...; "" when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def open_descriptors() -> set[str]:
    """What this process has open, by identity (`socket:[1234]`, `pipe:[1235]`, a path).

    Unlike in a count, one that somebody else closes does not hide one that is left.
    """
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed the others
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found


@asynccontextmanager
async def a_slot(
    directory: Path, *, containment: Containment | None = None, **settings: Any
) -> AsyncIterator[SlotUnderTest]:
    containment = containment or find_containment(f"test-{os.getpid()}")
    slot = SlotUnderTest(directory, containment, KeeperSettings(**settings))
    groups = containment.slot_groups(0).paths()
    await slot.slot.adopt()
    before = open_descriptors()
    try:
        yield slot
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await slot.slot.close(end_keeper=True)
    assert not [path for path in groups if path.parent.exists()], "a group is left"
    assert not SlotDir(directory / "slot").keeper_lives(), "a keeper is left"
    assert open_descriptors() - before == set(), "a descriptor is left"
