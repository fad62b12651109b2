"""A real coordinator process on a data directory, which a test may kill, end and start again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from windlass.profile import Profile

READY_WITHIN_S = 60.0
ENDS_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.02


class CoordinatorProcess(AbstractContextManager["CoordinatorProcess"]):
    """Listens on ports that the system chooses; they change with each start."""

    def __init__(self, data: Path, **settings: str) -> None:
        """`settings` as in the environment, without the prefix: RETRY_BASE="1h"."""
        self.data = data
        self._environment = environment(**settings)
        self._process: subprocess.Popen[str] | None = None
        self.log = data.parent / f"{data.name}.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(ENDS_WITHIN_S)

    def start(self) -> None:
        """Returns when it serves."""
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                coordinator_command(self.data), stdout=log, stderr=log, text=True, env=self._environment
            )
        wait_until(self._is_ready, within_s=READY_WITHIN_S, what="the coordinator serves")

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"the coordinator has ended:\n{self.log.read_text()}"
        return bool(self._announced().get("pid") == self.process.pid)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.process.kill()
        self.process.wait(ENDS_WITHIN_S)

    def ask_to_end(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """Waits until it has ended."""
        return self.process.wait(ENDS_WITHIN_S)

    @property
    def process(self) -> "subprocess.Popen[str]":
        assert self._process is not None, "not started"
        return self._process

    @property
    def grpc_address(self) -> str:
        return str(self._announced()["grpc"])

    @property
    def http_address(self) -> str:
        return str(self._announced()["http"])

    @property
    def admin_token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    @property
    def profile(self) -> Profile:
        return Profile(coordinator=self.grpc_address, token_file=self.data / "admin.token")

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.grpc_address)

    def _announced(self) -> dict[str, object]:
        try:
            found: dict[str, object] = json.loads((self.data / "coordinator.json").read_text())
        except FileNotFoundError:
            return {}
        return found


def coordinator_command(data: Path, *, listen: str = "127.0.0.1:0") -> list[str]:
    program = [sys.executable, "-m", "windlass_coordinator.app"]
    return [*program, "--data", str(data), "--listen", listen, "--http", "127.0.0.1:0"]


def environment(**settings: str) -> dict[str, str]:
    """Ours, with these settings of a coordinator and none that somebody may have made for themselves."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
    return ours | {f"WINDLASS_COORDINATOR_{name}": value for name, value in settings.items()}


def wait_until(holds: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Looks until the condition holds; fails the test at the deadline."""
    give_up_at = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up_at, f"not within {within_s} s: {what}"
        time.sleep(_LOOK_EVERY_S)
