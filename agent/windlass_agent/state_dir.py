"""The agent's state directory: where everything lies, and the lock that keeps a second agent out."""

import fcntl
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from windlass_agent.spool.attempt_dir import attempt_name
from windlass_agent.spool.durable import write_whole
from windlass_agent.spool.evidence import Evidence
from windlass_agent.spool.keeper_records import ref_from_json, ref_to_json
from windlass_agent.spool.remove_tree import remove_tree
from windlass_proto.errors import Conflict, Unavailable
from windlass_proto.model.ids import AttemptRef


class StateDir:
    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.attempts = self.root / "attempts"
        self._attempts_text = str(self.attempts)
        self.identity = self.root / "node.json"
        self.intents = self.root / "intents"
        self._slots = self.root / "slots"
        self.evidence = Evidence(self.root / "evidence")
        self.packages = self.root / "packages"
        self.containers = self.root / "containers"
        self.notice = self.root / "notice.json"
        self.lock = self.root / "lock"
        self._ended_by_agent = self.root / "ended-by-agent.json"
        self._lock: int | None = None

    def open(self) -> None:
        """Makes it and locks it. Raises Conflict when another agent has it."""
        try:
            for directory in (self.root, self.attempts, self._slots):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise Conflict(
                f"another agent uses the state directory {self.root}; stop it, or give --state another one"
            ) from problem
        except OSError as problem:
            raise Unavailable(f"the state directory {self.root} cannot be used: {problem}") from problem

    @property
    def place(self) -> str:
        """Which directory this is: the same after a rename, another one for a copy."""
        about = self.root.stat()
        return f"{about.st_dev:x}-{about.st_ino:x}"

    @property
    def is_removed(self) -> bool:
        """Somebody has deleted the directory under the running agent."""
        return self._lock is not None and os.fstat(self._lock).st_nlink == 0

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def slot(self, number: int) -> Path:
        return self._slots / str(number)

    def slots_used(self) -> int:
        """How many slots have ever been used here; those beyond the settings' may still run something."""
        numbers = [int(path.name) for path in self._slots.iterdir() if path.name.isdigit()]
        return max(numbers, default=-1) + 1

    def attempt(self, ref: AttemptRef) -> Path:
        return Path(self.attempt_text(ref))

    def attempt_text(self, ref: AttemptRef) -> str:
        """The same as text: making a Path costs as much as all else that is done for a short command."""
        return f"{self._attempts_text}/{attempt_name(ref)}"

    def leftovers(self, live: Iterable[AttemptRef]) -> list[Path]:
        """Directories of attempts that were forgotten while the agent ended."""
        wanted = {self.attempt(ref).name for ref in live}
        return [path for path in self.attempts.iterdir() if path.name not in wanted]

    def clear_work(self) -> None:
        """The node has left: nobody will ask for what it had."""
        for path in self.attempts.iterdir():
            remove_tree(path)
        for file in (self.intents, self.notice):
            file.unlink(missing_ok=True)

    def note_ended_by_agent(self, refs: Iterable[AttemptRef]) -> None:
        """Before their keepers are ended: the next agent must not take that for the commands' own end."""
        with suppress(FileNotFoundError):  # The whole directory was removed: there will be no next agent.
            write_whole(self._ended_by_agent, json.dumps([ref_to_json(ref) for ref in refs]).encode())

    def ended_by_agent(self) -> frozenset[AttemptRef]:
        try:
            return frozenset(
                ref_from_json(columns) for columns in json.loads(self._ended_by_agent.read_text())
            )
        except FileNotFoundError:
            return frozenset()
