"""The seam of storage schemes: one file each, opened here when first used (their libraries are heavy)."""

from threading import Lock

from windlass_agent.mounts.base import BadMapping, Storage
from windlass_proto.model.storage import OBJECT_SCHEMES, StorageProfiles


class Storages:
    """The storage behind each scheme; opened once, shared by all attempts and threads."""

    def __init__(self, profiles: StorageProfiles, *, threads: int) -> None:
        self._profiles = profiles
        self._threads = threads
        self._open: dict[str, Storage] = {}
        self._lock = Lock()

    def for_scheme(self, scheme: str) -> Storage:
        """Raises BadMapping when nothing is configured for the scheme."""
        with self._lock:
            if scheme not in self._open:
                self._open[scheme] = open_storage(scheme, self._profiles, threads=self._threads)
            return self._open[scheme]


def open_storage(scheme: str, profiles: StorageProfiles, *, threads: int) -> Storage:
    if scheme in OBJECT_SCHEMES:
        from windlass_agent.mounts.object_store import ObjectStore

        try:
            return ObjectStore(profiles.for_scheme(scheme), threads=threads)
        except LookupError as problem:
            raise BadMapping(str(problem)) from problem
    raise BadMapping(f"{scheme}:// is no storage scheme that is known here")
