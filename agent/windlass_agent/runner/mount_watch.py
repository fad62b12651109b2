"""Looks after the mounts of running commands.

A command that waits for a file system whose daemon hangs cannot even be killed. So such a daemon is found
while the command runs, and the kernel told to give up on it: the command sees errors then, and can end.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from windlass_agent.mounts.base import InputMounter
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.steps.threads import in_thread
from windlass_proto.model.ids import AttemptRef

_EVERY_S = 5.0


class MountWatch:
    def __init__(
        self, runner: AttemptRunner, mounter: InputMounter, *, directory_of: Callable[[AttemptRef], Path]
    ) -> None:
        self._runner, self._mounter, self._directory_of = runner, mounter, directory_of

    async def serve(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            for ref in self._runner.running_with_inputs:
                await in_thread(partial(self._mounter.look_after, self._directory_of(ref)))
