"""What a slot's journal tells: which commands began, which ended and how; which segments are needed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from windlass_agent.core.run_plan import ExitRecord, StartRecord
from windlass_agent.spool.durable import NO_RECORD, JsonRecord, check_numbers
from windlass_agent.spool.keeper_records import read_exit, read_start, ref_from_json
from windlass_agent.spool.slot_dir import JournalSegment
from windlass_proto.model.ids import AttemptRef


@dataclass(slots=True, kw_only=True)
class JournalContent:
    """All segments together."""

    segment_of: dict[AttemptRef, JournalSegment] = field(default_factory=dict)
    """Every attempt in the journal; all records of one stand in one segment."""
    starts: dict[AttemptRef, StartRecord] = field(default_factory=dict)
    """Of processes that are ours: those in a copied journal are not."""
    ends: dict[AttemptRef, ExitRecord] = field(default_factory=dict)
    damaged: int = 0


def read_content(segments: Iterable[JournalSegment]) -> JournalContent:
    content = JournalContent()
    for segment in segments:
        content.damaged += segment.damaged
        for record in segment.records:
            try:
                _take(content, segment, record)
            except NO_RECORD:
                content.damaged += 1
    return content


def _take(content: JournalContent, segment: JournalSegment, record: JsonRecord) -> None:
    """Raises one of NO_RECORD, and has taken nothing of it, for what a keeper never wrote."""
    ref = ref_from_json(record["ref"])
    check_numbers(ref.task_key, ref.index, ref.attempt, ref.fence)
    if record["is"] == "start":
        start = read_start(record, ref)
        check_numbers(start.pid, start.start_ticks)
        if not segment.is_copy:
            content.starts[ref] = start
    elif record["is"] == "exit":
        end = read_exit(record, ref)
        check_numbers(end.ran_for_us, end.user_cpu_us, end.system_cpu_us, end.peak_memory_bytes)
        check_numbers(end.stdout_end, end.stderr_end, end.leftover_processes)
        content.ends[ref] = end
    content.segment_of[ref] = segment


class JournalPins:
    """A segment goes when all attempts in it are forgotten; the newest stays, it is being written."""

    def __init__(self, delete: Callable[[int], None]) -> None:
        self._delete = delete
        self._pins: dict[int, int] = {}
        self._segment_of: dict[AttemptRef, int] = {}

    def pin(self, ref: AttemptRef, segment: int) -> None:
        if ref in self._segment_of:
            return
        self._segment_of[ref] = segment
        is_new = segment not in self._pins
        self._pins[segment] = self._pins.get(segment, 0) + 1
        if is_new:
            self._sweep()

    def forget(self, ref: AttemptRef) -> None:
        segment = self._segment_of.pop(ref, None)
        if segment is not None:
            self._pins[segment] -= 1
            if not self._pins[segment]:
                self._sweep()

    def _sweep(self) -> None:
        newest = max(self._pins)
        for segment in [number for number, pins in self._pins.items() if not pins and number < newest]:
            del self._pins[segment]
            self._delete(segment)
