"""What a storage scheme can do for an attempt: show a directory to it, bring one down, take one up after it.

All methods block; they are called in threads. They stop soon after `cancelled` is set.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Protocol

from windlass_agent.core.mount_plan import InputMount
from windlass_agent.mounts.output_store import OutputStore
from windlass_proto.errors import InvalidRequest, Unavailable, WindlassError
from windlass_proto.model.storage import ObjectLocation, StorageProfile


class BadMapping(InvalidRequest):
    """The user's mapping cannot work: no such bucket, no rights, an impossible name."""


class StoreRefused(BadMapping):
    """The server said no; what it says may change, as when a bucket is made or a right is given."""


class StorageUnavailable(Unavailable):
    """The server or the way to it failed, also after retries."""


class TransferCancelled(WindlassError):
    """It was asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenObject:
    """One object below a directory."""

    name: str
    """From the directory on."""
    size_bytes: int
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What lies below a directory, as far as it was looked at."""

    objects: tuple[SeenObject, ...]
    """In the order of their names."""
    is_whole: bool
    """Nothing lies there that is not in `objects`."""
    is_object: bool = False
    """The source is no directory but one object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectIdentity:
    """Which bytes an object is, as far as its store tells without giving them."""

    name: str
    """The same for the same bytes at the same place; letters and digits."""
    size_bytes: int


class Storage(Protocol):
    @property
    def profile(self) -> StorageProfile:
        """The server behind it."""

    def survey(self, source: ObjectLocation, *, most: int) -> Survey:
        """Looks at the first `most` objects; raises BadMapping for what is not there or not allowed."""

    def fetch_directory(self, source: ObjectLocation, directory: Path, *, cancelled: Event) -> None:
        """Copies everything below `source` into the existing `directory`.

        A source that is one object becomes a file of its name. Nothing there: the directory stays empty.
        """

    def fetch_file(self, source: ObjectLocation, path: Path, *, cancelled: Event) -> None:
        """Copies one object; raises BadMapping when there is none."""

    def identity_of(self, source: ObjectLocation) -> ObjectIdentity:
        """Of one object that may be read; raises BadMapping when there is none."""

    @property
    def outputs(self) -> OutputStore:
        """What takes outputs."""


class StorageOpener(Protocol):
    def for_scheme(self, scheme: str, *, storage: str = "") -> Storage:
        """`storage` names a stored one; "" = the one that the task names, or else the node's own for the
        scheme. Raises BadMapping when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRequest:
    """Everything that one attempt wants to see."""

    root: Path
    """The attempt's own directory."""
    inputs: tuple[InputMount, ...]
    codec: str = ""
    """Character set of file names; "" = UTF-8, as they are."""
    locks: bool = False
    """Whether file locks are to work."""


class InputMounter(Protocol):
    """Shows an attempt its inputs, whichever scheme they have, and takes them off again.

    All methods block, but for as long as what they touch lets them.
    """

    def mount(self, request: MountRequest, storages: StorageOpener, *, cancelled: Event) -> None:
        """Returns when all of them are there and proved. Raises BadMapping or StorageUnavailable."""

    def verdict(self, root: Path) -> str:
        """Why what the command read cannot be trusted; "" = all mounts have lived until now.

        Once said it is not taken back: the mounts may be gone when it is asked again.
        """

    def look_after(self, root: Path) -> None:
        """While the command runs: frees it from a mount that hangs, and remembers that."""

    def release(self, root: Path) -> None:
        """Takes off what lies below the attempt's directory; may be repeated."""
