"""What a storage scheme can do for an attempt: bring a directory down before it, take one up after it.

All methods block; they are called in threads. They stop soon after `cancelled` is set.
"""

from pathlib import Path
from threading import Event
from typing import BinaryIO, Protocol

from windlass_proto.errors import InvalidRequest, Unavailable, WindlassError
from windlass_proto.model.storage import ObjectLocation


class BadMapping(InvalidRequest):
    """The user's mapping cannot work: no such bucket, no rights, an impossible name."""


class StorageUnavailable(Unavailable):
    """The server or the way to it failed, also after retries."""


class TransferCancelled(WindlassError):
    """It was asked to stop."""


class Storage(Protocol):
    def fetch_directory(self, source: ObjectLocation, directory: Path, *, cancelled: Event) -> None:
        """Copies everything below `source` into the existing `directory`.

        A source that is one object becomes a file of its name. Nothing there: the directory stays empty.
        """

    def fetch_file(self, source: ObjectLocation, path: Path, *, cancelled: Event) -> None:
        """Copies one object; raises BadMapping when there is none."""

    def store_directory(self, directory: Path, target: ObjectLocation, *, cancelled: Event) -> None:
        """Copies every regular file below `directory` to below `target`."""

    def store_stream(self, stream: BinaryIO, target: ObjectLocation, *, cancelled: Event) -> None:
        """Copies what can be read from the stream to one object."""


class StorageOpener(Protocol):
    def for_scheme(self, scheme: str, *, storage: str = "") -> Storage:
        """`storage` names a stored one; "" = the one that the task names, or else the node's own for the
        scheme. Raises BadMapping when there is none."""
