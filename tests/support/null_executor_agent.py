"""A real agent whose slots start no process: each attempt ends at once with code 0. Run as the agent is."""

import asyncio
import sys

from windlass_agent.config import load_settings
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, Lease
from windlass_agent.daemon import run_agent
from windlass_agent.runner.executor import OnKeeperLost, OnRecord
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.state_dir import StateDir
from windlass_proto.model.ids import AttemptRef


class NullExecutor:
    def __init__(self, on_record: OnRecord) -> None:
        self._on_record = on_record

    async def adopt(self) -> SlotInventory:
        return SlotInventory()

    async def start(self) -> None:
        """There is nothing to start."""

    def hand_over(self, plan: CommandPlan, *, share: str | None = None) -> None:
        asyncio.get_running_loop().call_soon(self._on_record, _success(plan.ref))

    def stop(self, ref: AttemptRef, *, grace_s: float | None = None) -> None:
        """It has ended before anybody could ask."""

    def renew_lease(self, lease: Lease) -> None:
        """Nothing of it runs for long."""

    @property
    def is_stuck(self) -> bool:
        return False

    def forget(self, ref: AttemptRef) -> None:
        """It keeps no records."""

    def limit_spool(self, *, attempt_bytes: int, slot_bytes: int) -> None:
        """It stores nothing."""

    async def close(self, *, end_keeper: bool) -> None:
        """There is nothing to end."""


def _success(ref: AttemptRef) -> ExitRecord:
    return ExitRecord(
        ref=ref,
        code=0,
        signal=None,
        kind=None,
        reason="",
        ran_for_us=0,
        user_cpu_us=0,
        system_cpu_us=0,
        peak_memory_bytes=0,
        stdout_end=0,
        stderr_end=0,
        started=True,
        stopped=False,
        leftover_processes=0,
    )


def _make(_slot: int, on_record: OnRecord, _on_keeper_lost: OnKeeperLost) -> NullExecutor:
    return NullExecutor(on_record)


def main(arguments: list[str]) -> None:
    settings = load_settings(arguments)
    state = StateDir(settings.state)
    state.open()
    asyncio.run(run_agent(settings, state, make_executor=_make))


if __name__ == "__main__":
    main(sys.argv[1:])
