"""How fast keepers alone start commands, how fast one starts on an idle node, how fast output moves.

The keepers are the real ones, in real slots with the machine's containment, driven by `Slot` as by the agent.
Meant to be compared with the bare limit of the same minutes, `popen_two_pipes`.
"""

import asyncio
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.programs import BenchFailed
from windlass_agent.core.isolation import sandbox_plan
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord
from windlass_agent.isolation.machine import find_bwrap
from windlass_agent.runner.cgroups import find_containment
from windlass_agent.runner.keeper_client import Slot
from windlass_agent.runner.keeper_process import KeeperSettings
from windlass_proto.model.events import LostOnNode, PrepareFailed
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey
from windlass_proto.model.specs import Isolation

HANDED_OVER = 64
"""Plans that each slot has at a time, as with an agent that prefetches short tasks."""
_USERS = (1_900_001_000, 16)
"""Of isolated commands; of no agent's range."""
_ENVIRONMENT = {"PATH": "/usr/bin:/bin"} | {f"WINDLASS_EXAMPLE_{number}": "value" * 4 for number in range(20)}


class _Bench:
    """Slots in a directory of their own; counts what ends."""

    def __init__(self, directory: Path, slots: int) -> None:
        self._directory = directory
        self._containment = find_containment(f"benchmark-{os.getpid()}")
        self._index = 0
        self._lost = ""
        self.done = asyncio.Event()
        self.ended: list[ExitRecord] = []
        self.on_exit: Callable[[], None] = lambda: None
        self.slots = [
            Slot(
                number,
                directory=directory / f"slot-{number}",
                containment=self._containment,
                on_record=self._on_record,
                on_keeper_lost=self._on_lost,
                settings=KeeperSettings(
                    spool_limit_bytes=1 << 40, state=str(directory), uids=_USERS, bwrap=find_bwrap()
                ),
            )
            for number in range(slots)
        ]

    async def __aenter__(self) -> "_Bench":
        for slot in self.slots:
            await slot.adopt()
            await slot.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for slot in self.slots:
            await slot.close(end_keeper=True)

    def run(self, slot: Slot, *argv: str, isolation: Isolation = Isolation.DEV) -> AttemptRef:
        ref = AttemptRef(task_key=TaskKey(1), index=self._index, attempt=1, fence=Fence(1))
        self._index += 1
        plan = CommandPlan(
            ref=ref,
            argv=argv,
            env=_ENVIRONMENT | {"WINDLASS_INDEX": str(ref.index)},
            work_dir=None,
            output_dir=str(self._directory / "attempts" / str(ref.index)),
            timeout_s=3600.0,
            kill_grace_s=5.0,
            memory_bytes=0,
            isolation=sandbox_plan(isolation),
        )
        slot.hand_over(plan, share=f"benchmark {isolation}")
        return ref

    async def until_done(self) -> None:
        """Raises when a keeper is lost meanwhile."""
        await self.done.wait()
        self.done.clear()
        if self._lost:
            raise AssertionError(self._lost)

    def _on_lost(self, slot: int, refs: tuple[AttemptRef, ...], what: LostOnNode | PrepareFailed) -> None:
        self._lost = f"the keeper of slot {slot} was lost with {len(refs)} attempts: {what.reason}"
        self.done.set()

    def _on_record(self, record: KeeperRecord) -> None:
        if isinstance(record, ExitRecord):
            self.ended.append(record)
            self.on_exit()


def keepers_alone(slots: int, n: int) -> float:
    """Starts per second of `n` times /bin/true, cgroup and work directory included."""
    return asyncio.run(_keepers_alone(slots, n))


async def _keepers_alone(slots: int, n: int) -> float:
    with tempfile.TemporaryDirectory() as directory:
        async with _Bench(Path(directory), slots) as bench:
            left = n

            def refill() -> None:
                nonlocal left
                for slot in bench.slots:
                    while left and slot.depth <= HANDED_OVER // 2:
                        for _ in range(min(left, HANDED_OVER - slot.depth)):
                            bench.run(slot, "/bin/true")
                            left -= 1
                if len(bench.ended) == n:
                    bench.done.set()

            bench.on_exit = refill
            began = time.perf_counter()
            refill()
            await bench.until_done()
            took = time.perf_counter() - began
            for record in bench.ended:
                bench.slots[0].forget(record.ref)
            return n / took


def start_exit_by_isolation(n: int) -> dict[Isolation, list[float]]:
    """Milliseconds of one start and exit under each isolation, in turns: both see the same machine."""
    return asyncio.run(_start_exit_by_isolation(n))


async def _start_exit_by_isolation(n: int) -> dict[Isolation, list[float]]:
    took_ms: dict[Isolation, list[float]] = {kind: [] for kind in (Isolation.DEV, Isolation.STANDARD)}
    with tempfile.TemporaryDirectory() as directory:
        async with _Bench(Path(directory), 1) as bench:
            bench.on_exit = bench.done.set
            for _ in range(n):
                for isolation, samples in took_ms.items():
                    began = time.perf_counter()
                    bench.run(bench.slots[0], "/bin/true", isolation=isolation)
                    await bench.until_done()
                    samples.append((time.perf_counter() - began) * 1000)
            failed = [record.reason for record in bench.ended if record.code != 0]
    if failed:
        raise BenchFailed(f"a command did not run: {failed[0]}")
    return took_ms


def idle_start_exit(n: int, gap_s: float = 0.15) -> list[float]:
    """Milliseconds from handing over one /bin/true to hearing of its end, `gap_s` apart."""
    return asyncio.run(_idle_start_exit(n, gap_s))


async def _idle_start_exit(n: int, gap_s: float) -> list[float]:
    took_ms = []
    with tempfile.TemporaryDirectory() as directory:
        async with _Bench(Path(directory), 1) as bench:
            for _ in range(n):
                await asyncio.sleep(gap_s)
                bench.on_exit = bench.done.set
                began = time.perf_counter()
                bench.run(bench.slots[0], "/bin/true")
                await bench.until_done()
                took_ms.append((time.perf_counter() - began) * 1000)
    return took_ms


def splice_rate(size_bytes: int) -> float:
    """MB/s of one command's output into segment files."""
    return asyncio.run(_splice_rate(size_bytes))


async def _splice_rate(size_bytes: int) -> float:
    with tempfile.TemporaryDirectory() as directory:
        async with _Bench(Path(directory), 1) as bench:
            bench.on_exit = bench.done.set
            began = time.perf_counter()
            bench.run(bench.slots[0], "head", "-c", str(size_bytes), "/dev/zero")
            await bench.until_done()
            took = time.perf_counter() - began
            if bench.ended[0].stdout_end != size_bytes:
                raise AssertionError(f"{bench.ended[0]} instead of {size_bytes} bytes")
            return size_bytes / took / 1e6


def popen_two_pipes(n: int, processes: int = 2) -> float:
    """Starts per second of bare `subprocess` with two pipes: the limit that keepers are held against."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(_popen_two_pipes, [1] * processes)
        began = time.perf_counter()
        pool.map(_popen_two_pipes, [n // processes] * processes, chunksize=1)
        return n / (time.perf_counter() - began)


def _popen_two_pipes(n: int) -> None:
    for _ in range(n):
        subprocess.run(
            ["/bin/true"], stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=True
        )


if __name__ == "__main__":
    for _ in range(3):
        before = popen_two_pipes(3000)
        two, sixteen = keepers_alone(2, 3000), keepers_alone(16, 3000)
        limit = (before + popen_two_pipes(3000)) / 2
        print(f"limit {limit:.0f}/s; 2 slots {two:.0f} = {two / limit:.2f}", end="; ")
        print(f"16 slots {sixteen:.0f} = {sixteen / limit:.2f}")
    idle = sorted(idle_start_exit(25))
    print(f"idle start+exit ms: p50 {idle[len(idle) // 2]:.2f} max {idle[-1]:.2f}")
    print("splice MB/s:", [round(splice_rate(1 << 30)) for _ in range(3)])
