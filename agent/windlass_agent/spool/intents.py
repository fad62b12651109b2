"""The agent's own journal: which assignments it has, written before anything of them starts (A1).

One record per assigned batch (what its attempts share once, then columns) and one per forgotten batch; each
is one write(2). When most of the file is history it is written anew and renamed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from windlass_agent.spool.durable import (
    NO_RECORD,
    JsonLog,
    JsonRecord,
    check_numbers,
    json_line,
    read_json_lines,
    write_whole,
)
from windlass_agent.spool.evidence import Evidence
from windlass_proto.failpoints import reach
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

SharedPart = Mapping[str, Any]
"""What all attempts of a batch have in common, as JSON: job, task, specification."""
_UNWRITTEN_MOST = 50_000
COMPACT_BYTES = 4 << 20
"""The file is not worth rewriting below this size."""


class IntentJournal:
    """Live assignments, each with the shared part of its batch."""

    def __init__(
        self, path: Path, *, evidence: Evidence | None = None, compact_bytes: int = COMPACT_BYTES
    ) -> None:
        """Reads what an earlier life of the agent wrote; of a damaged file a copy is kept."""
        self._path = path
        self._compact_bytes = compact_bytes
        self._live: dict[AttemptRef, SharedPart] = {}
        self._gpus: dict[AttemptRef, tuple[str, ...]] = {}
        self._unwritten: list[AttemptRef] = []
        """Forgotten, and the disk would not take it; written with the next record."""
        lines = read_json_lines(path)
        self.damaged = lines.damaged
        """Lines that could not be read; what they assigned this agent does not know."""
        for record in lines.records:
            try:
                self._replay(record)
            except NO_RECORD:
                self.damaged += 1
        if self.damaged and evidence is not None:
            evidence.keep(path)
        self._log = JsonLog(path)
        if self.damaged:
            self._compact()
        else:
            self._compact_when_worth_it()

    @property
    def live(self) -> Mapping[AttemptRef, SharedPart]:
        return MappingProxyType(self._live)

    @property
    def gpus(self) -> Mapping[AttemptRef, tuple[str, ...]]:
        """Of the live attempts that have some: those they were given last."""
        return MappingProxyType(self._gpus)

    def assign(self, shared: SharedPart, refs: Sequence[AttemptRef]) -> None:
        """Refs of one task. Written down when this returns; raises OSError when it cannot be."""
        self._log.append([_batch(shared, refs)])
        reach("agent.intent.after_write")
        self._live.update((ref, shared) for ref in refs)

    def give_gpus(self, ref: AttemptRef, gpus: Sequence[str]) -> None:
        """Of a live attempt, before it starts with them. Written down when this returns; raises OSError when
        it cannot be."""
        self._log.append([_with_gpus(ref, gpus)])
        self._gpus[ref] = tuple(gpus)

    def forget(self, refs: Iterable[AttemptRef]) -> None:
        """Refs that are not live are passed over.

        Never fails: what a full disk keeps in the journal the coordinator lets go of once more.
        """
        known = [ref for ref in refs if self._live.pop(ref, None) is not None]
        if not known:
            return
        for ref in known:
            self._gpus.pop(ref, None)
        self._unwritten += known
        try:
            self._log.append(
                {"is": "forget", "task_key": task_key, **_columns(group)}
                for task_key, group in _by_task(self._unwritten)
            )
        except OSError:
            del self._unwritten[:-_UNWRITTEN_MOST]
            return
        self._unwritten.clear()
        self._compact_when_worth_it()

    def try_to_write(self) -> None:
        """Writes a record that says nothing. Raises OSError when no assignment could be written either."""
        self._log.append([{"is": "forget", "task_key": 0, **_columns([])}])

    def close(self) -> None:
        self._log.close()

    def _replay(self, record: JsonRecord) -> None:
        """Raises one of NO_RECORD, and has changed nothing, for what was never written here."""
        refs = _refs(record)
        for ref in refs:
            check_numbers(ref.task_key, ref.index, ref.attempt, ref.fence)
        if record["is"] == "assign":
            shared = dict(record["shared"])
            self._live.update((ref, shared) for ref in refs)
        elif record["is"] == "gpus":
            names = tuple(str(name) for name in record["names"])
            self._gpus.update((ref, names) for ref in refs if ref in self._live)
        elif record["is"] == "forget":
            for ref in refs:
                self._live.pop(ref, None)
                self._gpus.pop(ref, None)
        else:
            raise ValueError("neither an assignment nor its end")

    def _compact_when_worth_it(self) -> None:
        """The next time is when the file has doubled, so that rewriting costs a bounded share."""
        if self._log.size_bytes >= self._compact_bytes:
            self._compact()

    def _compact(self) -> None:
        data = b"".join(json_line(record) for record in self._snapshot())
        try:
            write_whole(self._path, data)
        except OSError:
            self._compact_bytes *= 2  # No room for a second copy now.
            return
        self._log.close()
        self._log = JsonLog(self._path)
        self._compact_bytes = max(self._compact_bytes, 2 * len(data))

    def _snapshot(self) -> Iterator[JsonRecord]:
        """Batches as they were assigned, without what is forgotten."""
        batches: dict[tuple[int, TaskKey], tuple[SharedPart, list[AttemptRef]]] = {}
        for ref, shared in self._live.items():
            batches.setdefault((id(shared), ref.task_key), (shared, []))[1].append(ref)
        for shared, refs in batches.values():
            yield _batch(shared, refs)
        for ref, names in self._gpus.items():
            yield _with_gpus(ref, names)


def _batch(shared: SharedPart, refs: Sequence[AttemptRef]) -> JsonRecord:
    return {"is": "assign", "task_key": refs[0].task_key, "shared": shared, **_columns(refs)}


def _with_gpus(ref: AttemptRef, names: Sequence[str]) -> JsonRecord:
    return {"is": "gpus", "task_key": ref.task_key, **_columns([ref]), "names": list(names)}


def _columns(refs: Sequence[AttemptRef]) -> dict[str, list[int]]:
    return {
        "index": [ref.index for ref in refs],
        "attempt": [ref.attempt for ref in refs],
        "fence": [ref.fence for ref in refs],
    }


def _refs(record: JsonRecord) -> list[AttemptRef]:
    columns = zip(record["index"], record["attempt"], record["fence"], strict=True)
    return [
        AttemptRef(task_key=TaskKey(record["task_key"]), index=index, attempt=attempt, fence=Fence(fence))
        for index, attempt, fence in columns
    ]


def _by_task(refs: Iterable[AttemptRef]) -> Iterator[tuple[TaskKey, list[AttemptRef]]]:
    tasks: dict[TaskKey, list[AttemptRef]] = {}
    for ref in refs:
        tasks.setdefault(ref.task_key, []).append(ref)
    yield from tasks.items()
