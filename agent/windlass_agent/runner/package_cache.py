"""Packages that this node has fetched before, by their content.

A task of many instances fetches its package once. What is kept is the archive: each attempt unpacks it anew,
from a descriptor that can only be read, so no attempt can change what the next one gets. The store is asked
every time whether the object is there, may be read by whoever asks, and is still the same.

    <root>/objects/DIGEST    an archive; the time of its last use is its modification time
    <root>/names/NAME        which digest an object had: digest of server, address, etag and size
    <root>/incoming/         what is being fetched; emptied when an agent uses it for the first time
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import IO

from windlass_agent.mounts.base import ObjectIdentity, Storage, StorageUnavailable, TransferCancelled
from windlass_agent.spool.durable import write_whole
from windlass_proto.model.storage import ObjectLocation

_LOOK_EVERY_S = 0.2
_SHARE_OF_DISK = 10
"""At most a tenth of the file system, whatever the setting says: attempts need the rest."""


class PackageCache:
    """One node's. Safe under many attempts at once, and after a kill at any moment."""

    def __init__(self, root: Path, *, limit_bytes: int) -> None:
        self._objects, self._names, self._incoming = root / "objects", root / "names", root / "incoming"
        self._limit_bytes = limit_bytes
        self._lock = Lock()
        self._expected_bytes = 0
        self._fetching: dict[str, tuple[Lock, int]] = {}
        self._is_open = False

    @contextmanager
    def archive(
        self, storage: Storage, source: ObjectLocation, *, private: Path, cancelled: Event
    ) -> Iterator[IO[bytes]]:
        """The object, to be read; `private` is where it lies meanwhile when it is not kept.

        Raises what the storage raises.
        """
        about = storage.identity_of(source)
        try:
            self._open()
            with self._alone_with(about.name, cancelled):
                file = self._kept(about) or self._fetched(storage, source, about, cancelled)
            if file is None:
                storage.fetch_file(source, private, cancelled=cancelled)
                file = private.open("rb")
        except OSError as problem:
            raise StorageUnavailable(f"{source}: on this node: {problem}") from problem
        try:
            with file:
                yield file
        finally:
            private.unlink(missing_ok=True)

    def _open(self) -> None:
        """Once: makes the folders and removes what an agent that was killed left half done."""
        with self._lock:
            if self._is_open:
                return
            for folder in (self._objects, self._names, self._incoming):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self._incoming.iterdir():
                left.unlink()
            self._make_room(0)
            self._forget_names()
            self._is_open = True

    def _kept(self, about: ObjectIdentity) -> IO[bytes] | None:
        """The archive of this very object, if it is here and whole."""
        try:
            digest = (self._names / about.name).read_text()
            file = (self._objects / digest).open("rb")
        except FileNotFoundError:
            return None
        # Nothing is synced here: after a power cut a file may be anything.
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            file.close()
            (self._objects / digest).unlink(missing_ok=True)
            return None
        file.seek(0)
        os.utime(file.fileno())
        return file

    def _fetched(
        self, storage: Storage, source: ObjectLocation, about: ObjectIdentity, cancelled: Event
    ) -> IO[bytes] | None:
        """Fetches it to keep it; None when there is no room, or when it was replaced meanwhile."""
        with self._lock:
            if not self._make_room(about.size_bytes):
                return None
            self._expected_bytes += about.size_bytes
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        os.close(descriptor)
        incoming = Path(name)
        try:
            storage.fetch_file(source, incoming, cancelled=cancelled)
            if storage.identity_of(source) != about or incoming.stat().st_size != about.size_bytes:
                return None
            return self._keep(incoming, about)
        finally:
            incoming.unlink(missing_ok=True)
            with self._lock:
                self._expected_bytes -= about.size_bytes

    def _keep(self, incoming: Path, about: ObjectIdentity) -> IO[bytes]:
        with incoming.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        incoming.chmod(0o400)
        write_whole(self._names / about.name, digest.encode())
        kept = incoming.open("rb")  # before others can see it, and remove it
        incoming.replace(self._objects / digest)
        return kept

    def _make_room(self, size_bytes: int) -> bool:
        """Removes what was used longest ago, until so much more may be kept; False when it may not."""
        disk = os.statvfs(self._objects)
        limit = min(self._limit_bytes, disk.f_blocks * disk.f_frsize // _SHARE_OF_DISK)
        limit -= self._expected_bytes + size_bytes
        if limit < 0 or size_bytes > disk.f_bavail * disk.f_frsize:
            return False
        kept = [(about.st_mtime_ns, about.st_size, path) for path, about in self._looked_at()]
        held_bytes = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if held_bytes <= limit:
                break
            path.unlink(missing_ok=True)
            held_bytes -= size
            self._forget_names()
        return True

    def _looked_at(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._objects.iterdir():
            try:
                yield path, path.stat()
            except FileNotFoundError:
                continue

    def _forget_names(self) -> None:
        """Of archives that are not here any more."""
        for name in self._names.iterdir():
            try:
                digest = name.read_text()
            except OSError:
                continue
            if not digest or not (self._objects / digest).exists():
                name.unlink(missing_ok=True)

    @contextmanager
    def _alone_with(self, name: str, cancelled: Event) -> Iterator[None]:
        """One attempt at a time fetches an object; the others find it when they come after."""
        with self._lock:
            lock, users = self._fetching.get(name, (Lock(), 0))
            self._fetching[name] = lock, users + 1
        try:
            while not lock.acquire(timeout=_LOOK_EVERY_S):
                if cancelled.is_set():
                    raise TransferCancelled("the transfer was stopped")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._lock:
                lock, users = self._fetching.pop(name)
                if users > 1:
                    self._fetching[name] = lock, users - 1
