"""A whole agent whose slots start nothing: every command has succeeded at once.

What it spends is what the agent itself costs, without keepers and commands. Takes the agent's own arguments.
"""

import asyncio

from windlass_agent.config import load_settings
from windlass_agent.core.run_plan import CommandPlan, ExitRecord, Lease
from windlass_agent.daemon import run_agent
from windlass_agent.runner.executor import Executor, OnKeeperLost, OnRecord
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.state_dir import StateDir
from windlass_proto.model.ids import AttemptRef

_RAN_FOR_US = 500


class NullSlot:
    """Implements `runner.executor.Executor`."""

    def __init__(self, on_record: OnRecord) -> None:
        self._on_record = on_record
        self._plans: list[CommandPlan] = []

    async def adopt(self) -> SlotInventory:
        return SlotInventory()

    async def start(self) -> None:
        """There is nothing to start."""

    def hand_over(self, plan: CommandPlan, *, share: str | None = None) -> None:
        if not self._plans:
            asyncio.get_running_loop().call_soon(self._end_all)
        self._plans.append(plan)

    def stop(self, ref: AttemptRef, *, grace_s: float | None = None) -> None:
        """What was handed over has ended before anybody could ask."""

    def renew_lease(self, lease: Lease) -> None:
        """Nothing of it runs for long."""

    @property
    def is_stuck(self) -> bool:
        return False

    def limit_spool(self, *, attempt_bytes: int, slot_bytes: int) -> None:
        """It stores nothing."""

    def forget(self, ref: AttemptRef) -> None:
        """Nothing is remembered."""

    async def close(self, *, end_keeper: bool) -> None:
        """Nothing is open."""

    def _end_all(self) -> None:
        plans, self._plans = self._plans, []
        for plan in plans:
            self._on_record(_succeeded(plan.ref))


def _succeeded(ref: AttemptRef) -> ExitRecord:
    return ExitRecord(
        ref=ref,
        code=0,
        signal=None,
        kind=None,
        reason="",
        ran_for_us=_RAN_FOR_US,
        user_cpu_us=0,
        system_cpu_us=0,
        peak_memory_bytes=0,
        stdout_end=0,
        stderr_end=0,
        started=True,
        stopped=False,
        leftover_processes=0,
    )


def _null_slot(number: int, on_record: OnRecord, on_keeper_lost: OnKeeperLost) -> Executor:
    return NullSlot(on_record)


def main() -> None:
    settings = load_settings()
    state = StateDir(settings.state)
    state.open()
    try:
        asyncio.run(run_agent(settings, state, make_executor=_null_slot))
    finally:
        state.close()


if __name__ == "__main__":
    main()
