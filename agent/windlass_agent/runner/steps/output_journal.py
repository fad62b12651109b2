"""What of an attempt's results is uploaded, remembered in its directory.

An agent that starts in between sends only what is not in here. Nothing depends on it but time: without it
everything is sent again.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from windlass_agent.mounts.output_store import Sent
from windlass_agent.runner.steps.output_files import FileState
from windlass_agent.spool.durable import NO_RECORD, JsonLog, JsonRecord, read_json_lines
from windlass_proto.model.storage import ObjectLocation

_NAME = "outputs.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunUpload:
    """One in parts that has not ended."""

    target: ObjectLocation
    storage: str
    """Name of the stored storage; "" = the task's."""
    upload_id: str


class OutputJournal:
    """One file of lines; opened when something is remembered."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._log: JsonLog | None = None
        # A step that is left behind in its thread may still write when nobody waits for it any more.
        self._guard, self._is_closed = Lock(), False
        self._sent: dict[str, tuple[FileState | None, Sent]] = {}
        self._begun: dict[str, BegunUpload] = {}
        self._stuck: Counter[str] = Counter()
        self._supersedes: bool | None = None
        self.is_published = False
        """Every object has its final name and was compared with the manifest."""
        self._read()

    @property
    def is_new(self) -> bool:
        return not self._sent and not self._begun

    def sent(self, target: ObjectLocation, state: FileState | None) -> Sent | None:
        """What was sent to this place, if it came from the file as it is now."""
        known = self._sent.get(str(target))
        return known[1] if known is not None and known[0] == state else None

    def note_sent(self, target: ObjectLocation, state: FileState | None, sent: Sent) -> None:
        self._sent[str(target)] = (state, sent)
        record: JsonRecord = {
            "to": str(target),
            "state": asdict(state) if state else None,
            "sent": asdict(sent),
        }
        self._write(record)

    def known(self, target: ObjectLocation) -> Sent:
        """What lies at this place, which has been sent."""
        return self._sent[str(target)][1]

    def uploads(self, storage: str) -> "StorageUploads":
        """Those in parts that go there."""
        return StorageUploads(self, storage)

    def unfinished(self) -> list[BegunUpload]:
        return list(self._begun.values())

    def begun(self, target: ObjectLocation) -> str:
        known = self._begun.get(str(target))
        return known.upload_id if known is not None else ""

    def note_begun(self, upload: BegunUpload) -> None:
        self._begun[str(upload.target)] = upload
        self._write({"begun": asdict(upload)})

    def note_stuck(self, target: ObjectLocation) -> int:
        """Not on disk: a new agent tries as often."""
        self._stuck[str(target)] += 1
        return self._stuck[str(target)]

    def note_ended(self, target: ObjectLocation) -> None:
        self._stuck.pop(str(target), None)
        if self._begun.pop(str(target), None) is not None:
            self._write({"ended": str(target)})

    def note_granted(self, *, supersedes: bool) -> bool:
        """The first answer stands: of a question asked again the coordinator cannot tell whom it preceded."""
        if self._supersedes is None:
            self._supersedes = supersedes
            self._write({"supersedes": supersedes})
        return self._supersedes

    def note_published(self) -> None:
        self.is_published = True
        self._write({"published": True})

    def forget_sent(self) -> None:
        """What was sent is not where it was: all of it goes up again."""
        self._sent.clear()
        self._write({"forgotten": True})

    def close(self) -> None:
        with self._guard:
            self._is_closed = True
            if self._log is not None:
                self._log.close()

    def _write(self, record: JsonRecord) -> None:
        # On a full disk it is not: an agent that starts in between sends once more.
        with self._guard, suppress(OSError):
            if self._is_closed:
                return
            if self._log is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._log = JsonLog(self._path)
            self._log.append([record])

    def _read(self) -> None:
        for record in read_json_lines(self._path).records:
            with suppress(*NO_RECORD):
                if "to" in record:
                    state = record["state"]
                    known = FileState(**state) if state is not None else None
                    self._sent[str(record["to"])] = (known, Sent(**record["sent"]))
                elif "begun" in record:
                    begun = record["begun"]
                    upload = BegunUpload(**(begun | {"target": ObjectLocation(**begun["target"])}))
                    self._begun[str(upload.target)] = upload
                elif "ended" in record:
                    self._begun.pop(str(record["ended"]), None)
                elif "forgotten" in record:
                    self._sent.clear()
                elif "supersedes" in record:
                    self._supersedes = bool(record["supersedes"])
                else:
                    self.is_published = self.is_published or record["published"] is True


class StorageUploads:
    """Implements `output_store.UploadBook`."""

    def __init__(self, journal: OutputJournal, storage: str) -> None:
        self._journal, self._storage = journal, storage

    def begun(self, target: ObjectLocation) -> str:
        return self._journal.begun(target)

    def note_begun(self, target: ObjectLocation, upload_id: str) -> None:
        self._journal.note_begun(BegunUpload(target=target, storage=self._storage, upload_id=upload_id))

    def note_stuck(self, target: ObjectLocation) -> int:
        return self._journal.note_stuck(target)

    def note_ended(self, target: ObjectLocation) -> None:
        self._journal.note_ended(target)
