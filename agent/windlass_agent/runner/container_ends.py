"""No attempt has ended before its container has: what keepers tell of it is looked at here first.

Usually the process that stood for the container has removed it, and all there is to do is to read how it
ended. Where that process, its keeper or the agent was killed, the container is ended and removed now.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from windlass_agent.containers.node_containers import NodeContainers
from windlass_agent.containers.outcome import is_in_container, judge, read_outcome
from windlass_agent.core.run_plan import ExitRecord, KeeperRecord
from windlass_agent.runner.live_attempt import LiveAttempt, never_began
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.model.events import Happening, LostOnNode
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef

_SWEEP_S = 600.0
_SWEEP_AGAIN_S = 10.0
"""When the engine did not answer."""
STUCK = LostOnNode(
    kind=FailureKind.INFRA_KILL_STUCK, reason="its container could not be ended, with its engine or without"
)

log = structlog.get_logger()


class EndsAttempts(Protocol):
    """What the runner offers for the time after."""

    def on_record(self, record: KeeperRecord) -> None: ...

    def end(self, attempt: LiveAttempt, what: Happening) -> None: ...

    @property
    def held(self) -> Collection[AttemptRef]: ...


class ContainerEnds:
    def __init__(self, containers: NodeContainers, *, directory_of: Callable[[AttemptRef], Path]) -> None:
        self._containers, self._directory_of = containers, directory_of
        self._is_something_left = asyncio.Event()

    async def settle(self, inventories: Sequence[SlotInventory]) -> list[SlotInventory]:
        """What slots hold from before the agent started; the containers of all that ended there are ended."""
        return [await self._settle(inventory) for inventory in inventories]

    async def _settle(self, inventory: SlotInventory) -> SlotInventory:
        for ref in inventory.lost:
            await self._end(self._directory_of(ref))
        ended = []
        for record in inventory.ended:
            directory = self._directory_of(record.ref)
            if is_in_container(directory) and not never_began(record):
                await self._end(directory)
                record = judge(record, directory)
            ended.append(record)
        return replace(inventory, ended=tuple(ended))

    async def end(self, runner: EndsAttempts, attempt: LiveAttempt, what: ExitRecord | Happening) -> None:
        """Tells the runner of the attempt's end once its container has ended too."""
        directory = self._directory_of(attempt.ref)
        is_gone = await self._end(directory)
        attempt.is_container_gone = True
        if not is_gone:
            log.error("container.stuck", index=attempt.ref.index, directory=str(directory))
            runner.end(attempt, STUCK)
        elif isinstance(what, ExitRecord):
            runner.on_record(judge(what, directory))
        else:
            runner.end(attempt, what)

    async def serve(self, runner: EndsAttempts) -> None:
        """Looks for containers that nobody knows any more; at once, and then now and then."""
        while True:
            self._is_something_left.clear()
            pause_s = _SWEEP_S if await self.sweep(lambda: runner.held) else _SWEEP_AGAIN_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._is_something_left.wait()

    async def sweep(self, held: Callable[[], Collection[AttemptRef]]) -> bool:
        """Whether the engine could be asked. `held` is asked after it: nothing new is taken for old."""
        found = await in_thread(self._containers.ours)
        if found:
            wanted = {self._containers.name_of(ref) for ref in held()}
            left = [name for name in found if name not in wanted]
            await in_thread(partial(self._containers.remove, left))
        return found is not None

    async def _end(self, directory: Path) -> bool:
        is_gone = await in_thread(partial(self._containers.end, directory))
        if read_outcome(directory).left:
            self._is_something_left.set()
        return is_gone
