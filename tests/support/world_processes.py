"""The programs of a world as processes: started, killed, frozen, started again on the same data."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.coordinator_process import wait_until
from tests.support.leftovers import MARK
from windlass_agent.spool.slot_dir import SlotDir

READY_WITHIN_S = 60.0
ENDS_WITHIN_S = 60.0


def clean_environment(mark: str) -> dict[str, str]:
    """Ours, without anybody's settings of Windlass."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
    return ours | {MARK: mark}


@dataclass(slots=True, kw_only=True)
class Program:
    """One of our programs. `environment` counts from its next start on."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    _process: "subprocess.Popen[bytes] | None" = None

    def spawn(self, *, failpoint: str = "", extra: Mapping[str, str] | None = None) -> None:
        """Starts the process and does not wait. `failpoint` is `name` or `name:n`: it dies there."""
        assert not self.is_running, f"{self.name} runs already"
        crash = {"WINDLASS_FAILPOINT": failpoint, "WINDLASS_TEST_BUILD": "1"} if failpoint else {}
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment | crash | dict(extra or {}),
            )

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def said(self) -> str:
        """Everything it has logged, over all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()
        self.process.wait(ENDS_WITHIN_S)

    def terminate(self) -> int:
        """SIGTERM; returns its exit code."""
        return self.end(signal.SIGTERM)

    def end(self, how: signal.Signals) -> int:
        """Sends the signal; returns its exit code."""
        self.process.send_signal(how)
        return self.exit_code()

    def exit_code(self) -> int:
        """Waits until it has ended by itself. -9 = SIGKILL, also at a failpoint."""
        return self.process.wait(ENDS_WITHIN_S)

    def pause(self) -> None:
        """SIGSTOP: as a machine that is frozen."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def usage(self) -> "Usage":
        about = psutil.Process(self.pid)
        return Usage(memory_bytes=about.memory_info().rss, descriptors=about.num_fds())

    def give_up(self) -> None:
        """For the end of a test that failed."""
        if self.is_running:
            self.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    memory_bytes: int
    descriptors: int


@dataclass(slots=True, kw_only=True)
class CoordinatorProgram(Program):
    """Listens at the same address in all its lives, so that agents and proxies find it again."""

    data: Path
    address: str
    """gRPC."""
    http: str
    settings: dict[str, str] = field(default_factory=dict)
    """As in the environment, without the prefix: {"LEASE_REPLACE_AFTER": "60s"}; for the next start."""

    def spawn(self, *, failpoint: str = "", extra: Mapping[str, str] | None = None) -> None:
        variables = {f"WINDLASS_COORDINATOR_{name}": value for name, value in self.settings.items()}
        Program.spawn(self, failpoint=failpoint, extra=variables | dict(extra or {}))

    def start(self, *, failpoint: str = "", extra: Mapping[str, str] | None = None) -> None:
        """Returns when it serves."""
        self.spawn(failpoint=failpoint, extra=extra)
        wait_until(self._serves, within_s=READY_WITHIN_S, what=f"{self.name} serves")

    def _serves(self) -> bool:
        assert self.is_running, f"{self.name} has ended with {self.process.poll()}:\n{self.said[-3000:]}"
        try:
            return bool(json.loads((self.data / "coordinator.json").read_text())["pid"] == self.pid)
        except (FileNotFoundError, ValueError):
            return False

    @property
    def database(self) -> Path:
        return self.data / "windlass.db"

    @property
    def token_file(self) -> Path:
        return self.data / "admin.token"

    def get(self, path: str) -> tuple[int, str]:
        """Over HTTP, such as /health/ready: status and text."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def metric(self, name: str) -> float:
        """One value of /metrics; `name` with its labels as it is written there."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"there is no metric {name}")


@dataclass(slots=True, kw_only=True)
class AgentProgram(Program):
    """One node. Its state directory stays when the agent ends."""

    state: Path
    cluster: str
    settings: dict[str, str] = field(default_factory=dict)
    """As in the environment, without the prefix: {"WORK_KILL_GRACE": "2s"}; for the next start."""

    def spawn(self, *, failpoint: str = "", extra: Mapping[str, str] | None = None) -> None:
        variables = {f"WINDLASS_AGENT_{name}": value for name, value in self.settings.items()}
        Program.spawn(self, failpoint=failpoint, extra=variables | dict(extra or {}))

    def start_again(self, *, failpoint: str = "", extra: Mapping[str, str] | None = None) -> None:
        """Does not wait; `World.until_ready` does."""
        self.spawn(failpoint=failpoint, extra=extra)

    @property
    def identity(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.state / "node.json").read_text())
        return found

    @property
    def node_id(self) -> str:
        return self.identity["node_id"]

    def slots(self) -> list[SlotDir]:
        return [SlotDir(path) for path in sorted((self.state / "slots").glob("[0-9]*"))]

    def keepers(self) -> list[int]:
        """Pids of the keepers that live, also while no agent does."""
        found = [slot.keeper_pid() for slot in self.slots() if slot.keeper_lives()]
        return [pid for pid in found if pid is not None]

    def commands(self) -> list[int]:
        """Pids of all processes below its keepers."""
        found = []
        for keeper in self.keepers():
            with suppress(psutil.Error):
                found += [child.pid for child in psutil.Process(keeper).children(recursive=True)]
        return found

    def attempts(self) -> list[str]:
        """Names of the attempt directories that are there."""
        directory = self.state / "attempts"
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    def kill_all(self) -> None:
        """Agent, keepers and commands at once, as when the machine dies."""
        if self.is_running:
            self.kill()
        for pid in [*self.keepers(), *self.commands()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def coordinator_program(
    directory: Path, *, data: Path, listen: str, http: str, mark: str
) -> CoordinatorProgram:
    """Not started yet."""
    command = [
        *(sys.executable, "-m", "windlass_coordinator.app"),
        *("--data", str(data), "--listen", listen, "--http", http),
    ]
    return CoordinatorProgram(
        name="coordinator",
        command=command,
        environment=clean_environment(mark),
        log=directory / "coordinator.log",
        data=data,
        address=listen,
        http=http,
    )


def wait_for_end(pids: list[int], *, within_s: float = ENDS_WITHIN_S) -> None:
    """Until none of these processes runs; zombies do not."""

    def gone() -> bool:
        return not any(_runs(pid) for pid in pids)

    wait_until(gone, within_s=within_s, what=f"{pids} have ended")


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def boot_seconds() -> float:
    """The clock of the ledger."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
