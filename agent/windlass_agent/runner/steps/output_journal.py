"""What of an attempt's results is uploaded, remembered in its directory.

An agent that starts in between sends only what is not in here. Nothing depends on it but time: without it
everything is sent again.
"""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from windlass_agent.mounts.output_store import Sent
from windlass_agent.runner.steps.output_files import FileState
from windlass_agent.spool.durable import NO_RECORD, JsonLog, JsonRecord, read_json_lines
from windlass_proto.model.storage import ObjectLocation

_NAME = "outputs.jsonl"


class OutputJournal:
    """One file of lines; opened when something is remembered."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._log: JsonLog | None = None
        # A step that is left behind in its thread may still write when nobody waits for it any more.
        self._guard, self._is_closed = Lock(), False
        self._sent: dict[str, tuple[FileState | None, Sent]] = {}
        self._supersedes: bool | None = None
        self.is_published = False
        """Every object has its final name and was compared with the manifest."""
        self._read()

    @property
    def is_new(self) -> bool:
        return not self._sent

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
                elif "forgotten" in record:
                    self._sent.clear()
                elif "supersedes" in record:
                    self._supersedes = bool(record["supersedes"])
                else:
                    self.is_published = self.is_published or record["published"] is True
