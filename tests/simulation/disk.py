"""What a machine keeps: it outlives the agent and the keepers, and goes only when it is wiped."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

from windlass_agent.core.run_plan import ExitRecord
from windlass_agent.spool.attempt_dir import attempt_path, remove_attempt
from windlass_agent.spool.durable import json_line
from windlass_proto.model.ids import AttemptRef, NodeId, NodeKey
from windlass_proto.model.states import LogStream

_SEGMENT_RECORDS = 4
"""A slot's journal is deleted in portions: what is forgotten may still stand in it."""
_PERIOD = 251


def produced_bytes(ref: AttemptRef, stream: LogStream, offset: int, length: int) -> bytes:
    """What the command of `ref` writes there: nothing else can pass for it."""
    seed = zlib.crc32(f"{ref.task_key}.{ref.index}.{ref.attempt}.{ref.fence}.{stream}".encode())
    return bytes((seed + (offset + i) * 31 + (offset + i) // _PERIOD) & 0xFF for i in range(length))


class SpoolWriter:
    """The keeper's end of one output stream, in the files that the agent's `OutputSpool` reads."""

    def __init__(self, directory: Path, ref: AttemptRef, stream: LogStream) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / f"{stream.value}.000000"
        self._gaps = directory / f"{stream.value}.gaps"
        self._ref, self._stream = ref, stream
        self.end = 0

    def write(self, length: int) -> None:
        mode = "r+b" if self._path.exists() else "x+b"
        with self._path.open(mode) as file:
            file.seek(self.end)
            file.write(produced_bytes(self._ref, self._stream, self.end, length))
        self.end += length

    def drop(self, length: int) -> None:
        """No room: counted, and gone."""
        with self._gaps.open("ab") as file:
            file.write(json_line({"offset": self.end, "length": length, "reason": "no room in the spool"}))
        self.end += length


@dataclass(slots=True)
class Segment:
    boot_id: str
    begun: list[AttemptRef] = field(default_factory=list)
    started: set[AttemptRef] = field(default_factory=set)
    ends: dict[AttemptRef, ExitRecord] = field(default_factory=dict)
    forgotten: set[AttemptRef] = field(default_factory=set)


@dataclass(slots=True)
class SlotJournal:
    """What a slot's keepers have written down."""

    segments: list[Segment] = field(default_factory=list)

    def begin(self, ref: AttemptRef, boot_id: str) -> None:
        newest = self.segments[-1] if self.segments else None
        if newest is None or newest.boot_id != boot_id or len(newest.begun) >= _SEGMENT_RECORDS:
            newest = Segment(boot_id)
            self.segments.append(newest)
        newest.begun.append(ref)

    def segment_of(self, ref: AttemptRef) -> Segment | None:
        return next((one for one in reversed(self.segments) if ref in one.begun), None)

    def forget(self, ref: AttemptRef) -> None:
        segment = self.segment_of(ref)
        if segment is None:
            return
        segment.forgotten.add(ref)
        if segment is not self.segments[-1] and segment.forgotten >= set(segment.begun):
            self.segments.remove(segment)

    def records(self) -> dict[AttemptRef, Segment]:
        return {ref: segment for segment in self.segments for ref in segment.begun}


@dataclass(slots=True)
class Identity:
    state_id: str
    node_key: NodeKey | None = None
    node_id: NodeId | None = None
    last_nonce: str = ""


class Disk:
    """A machine's state directory."""

    def __init__(self, root: Path, *, state_id: str, slots: int) -> None:
        root.mkdir(parents=True)
        self.intents = root / "intents"
        self.identity = Identity(state_id)
        self.journals = [SlotJournal() for _ in range(slots)]
        self.attempts = root / "attempts"

    def attempt(self, ref: AttemptRef) -> Path:
        """The name has no fence in it."""
        return attempt_path(self.attempts, ref)

    def remove(self, directory: Path) -> None:
        remove_attempt(directory)

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.attempts.iterdir()) if self.attempts.exists() else []
