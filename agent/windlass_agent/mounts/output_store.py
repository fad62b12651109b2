"""What an object store must do to take outputs: send files, give staged objects their final names, tell what
is there.

All methods block; they are called in threads. They raise `BadMapping` (or `StoreRefused`, for what the store
said) and `StorageUnavailable` as the rest of the seam does.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from windlass_proto.model.storage import ObjectLocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What was sent, counted and summed while it was: never what a file was said to hold."""

    size_bytes: int
    sha256: str
    md5: str
    parts_etag: str
    """What a store calls an object of these parts; "" = it went up in one piece."""
    etag: str
    """What the store called it; "" = nothing."""

    def is_called(self, etag: str) -> bool:
        """Whether a store may give this name to these bytes: by their MD5, or by those of their parts."""
        return bool(etag) and etag in (self.md5, self.parts_etag)


class ChangedWhileRead(Exception):
    """The bytes that were read are those of no moment: read them again."""


class OutputSource(Protocol):
    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; b"" = that was all."""

    def check(self, read_bytes: int) -> None:
        """After the last byte. Raises ChangedWhileRead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One object to be made."""

    target: ObjectLocation
    open: Callable[[], AbstractContextManager[OutputSource]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundObject:
    location: ObjectLocation
    size_bytes: int
    etag: str


class UploadBook(Protocol):
    """Uploads in parts that were begun and have not ended; used from any thread."""

    def begun(self, target: ObjectLocation) -> str:
        """The store's name for it; "" = there is none."""

    def note_begun(self, target: ObjectLocation, upload_id: str) -> None: ...

    def note_stuck(self, target: ObjectLocation) -> int:
        """It did not get on; how often that was so."""

    def note_ended(self, target: ObjectLocation) -> None:
        """The object is whole, or the upload was given up."""


class OutputStore(Protocol):
    def send_all(
        self,
        outgoing: Iterable[Outgoing],
        *,
        sent: Callable[[Outgoing, Sent], None],
        book: UploadBook,
        cancelled: Event,
    ) -> None:
        """Several at once, large ones in parts; `sent` is told of each, in the calling thread, when the store
        has all of it. At the first failure nothing more is begun. Uploads in parts that break stay in `book`,
        and go on from there the next time; a cancelled one is given up."""

    def copy(self, source: ObjectLocation, target: ObjectLocation, *, size_bytes: int) -> str:
        """Within the store; the new object's ETag, "" where it says none."""

    def put(self, target: ObjectLocation, data: bytes) -> None: ...

    def get(self, source: ObjectLocation) -> bytes | None:
        """A small object; None = there is none."""

    def look(self, location: ObjectLocation) -> FoundObject | None: ...

    def below(self, directory: ObjectLocation, *, first: str = "") -> Iterator[FoundObject]:
        """In the order of their keys; `first` = the name in the directory to begin at."""

    def directories(self, directory: ObjectLocation) -> list[ObjectLocation]:
        """Those right below it; nothing in them is looked at."""

    def remove(self, locations: Sequence[ObjectLocation]) -> None:
        """What is not there is no error."""

    def drop_parts(self, directory: ObjectLocation, *, but: Collection[str] = ()) -> None:
        """Of uploads in parts below it that nobody finished; not of those with these names."""

    def abort(self, target: ObjectLocation, upload_id: str) -> None:
        """Gives up an upload in parts; one that is not there is no error."""
