"""The directory of a slot: what its keeper and the agent find where, and the keeper's journal.

keeper.lock      held by the living keeper; keeper.sock and keeper.nonce: how to speak to it
keeper.log       its last words, should it fail
journal.000001   preallocated segments of records
work/            the working directory of commands that need no other; empty between two of them
trash/           what commands left in it
"""

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from windlass_agent.spool.durable import JsonRecord, read_json_lines
from windlass_agent.spool.evidence import Evidence
from windlass_agent.spool.remove_tree import remove_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSegment:
    """One file of a keeper's journal, as far as it can be read."""

    number: int
    boot_id: str
    """"" = the header is damaged."""
    is_copy: bool = False
    """Written in another directory: its processes, if they live, are those of another agent."""
    records: tuple[JsonRecord, ...]
    damaged: int


class SlotDir:
    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def log_path(self) -> Path:
        return self.path / "keeper.log"

    def nonce(self) -> str:
        return (self.path / "keeper.nonce").read_text()

    def keeper_lives(self) -> bool:
        """The kernel releases the lock with the process, so nothing has to be guessed from a pid."""
        try:
            fd = os.open(self.path / "keeper.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def keeper_pid(self) -> int | None:
        """Of the keeper that holds the lock, or held it last."""
        try:
            return int((self.path / "keeper.lock").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def read_journal(self) -> Iterator[JournalSegment]:
        """Oldest first."""
        here = self._place()
        for path in sorted(self.path.glob("journal.*")):
            lines = read_json_lines(path)
            header = next((record for record in lines.records if record.get("is") == "segment"), {})
            yield JournalSegment(
                number=int(path.suffix[1:]),
                boot_id=header.get("boot", ""),
                is_copy=header.get("slot", here) != here,
                records=tuple(record for record in lines.records if record.get("is") != "segment"),
                damaged=lines.damaged,
            )

    def keep_journal(self, evidence: Evidence) -> None:
        for path in self.path.glob("journal.*"):
            evidence.keep(path)

    def _place(self) -> list[int]:
        """As the keeper tells it in the header: the same after a rename, other numbers for a copy."""
        try:
            about = self.path.stat()
        except FileNotFoundError:
            return []
        return [about.st_dev, about.st_ino]

    def delete_segment(self, number: int) -> None:
        (self.path / f"journal.{number:06d}").unlink(missing_ok=True)

    def has_trash(self) -> bool:
        try:
            return bool(os.listdir(self.path / "trash"))
        except FileNotFoundError:
            return False

    def empty_trash(self) -> int:
        """How much could not be removed. Blocks for as long as it takes: call it off the event loop."""
        return sum(remove_tree(path) for path in (self.path / "trash").iterdir())
