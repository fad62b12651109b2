"""What an attempt publishes: names, sizes and checksums, and where staged objects and manifests lie.

The bytes of a manifest are a function of what they tell, so that an attempt that is interrupted and goes on
asks for the same right again (decision 0014).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from windlass_proto.model.ids import AttemptRef, JobId, TaskName
from windlass_proto.model.storage import ObjectLocation

_STAGING = ".windlass-staging/"
_MANIFESTS = ".windlass-manifests/"
_LEFT_OUT_MOST = 1_000
"""Names of what is no regular file, told in a manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceName:
    """Whose outputs they are, in words that may be parts of a path."""

    job_id: JobId
    task: TaskName
    index: int

    @property
    def path(self) -> str:
        return f"{self.job_id}/{self.task}/{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTarget:
    """A directory in an object store that gets files of an instance."""

    location: ObjectLocation
    storage: str = ""
    """Name of the stored storage that it is reached with; "" = the task's."""

    def final(self, name: str) -> ObjectLocation:
        return self.location.child(name)

    def staging(self, instance: InstanceName) -> ObjectLocation:
        """Of all attempts of the instance; beside the directory, so that nobody who reads that sees it."""
        return self._beside(_STAGING).child(instance.path + "/")

    def staging_of(self, instance: InstanceName, ref: AttemptRef) -> ObjectLocation:
        return self.staging(instance).child(f"{ref.attempt}-{ref.fence}/")

    def manifest(self, instance: InstanceName) -> ObjectLocation:
        return self._beside(_MANIFESTS).child(instance.path + ".json")

    def _beside(self, suffix: str) -> ObjectLocation:
        here = self.location
        return ObjectLocation(scheme=here.scheme, bucket=here.bucket, key=here.key.rstrip("/") + suffix)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    name: str
    """From the target on."""
    size_bytes: int
    sha256: str
    md5: str
    parts_etag: str = ""
    """What a store calls it that got it in parts; "" = it went up in one piece."""

    def is_called(self, etag: str) -> bool:
        """Whether a store may give this ETag to these bytes."""
        return bool(etag) and etag in (self.md5, self.parts_etag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    instance: InstanceName
    ref: AttemptRef
    files: Mapping[OutputTarget, tuple[PublishedFile, ...]]
    """In the order of their names; every target of the task, also one that gets nothing."""
    left_out: tuple[str, ...] = ()
    """What was there and is no regular file."""

    @property
    def count(self) -> int:
        return sum(len(files) for files in self.files.values())

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for files in self.files.values() for one in files)

    def data(self) -> bytes:
        """The manifest object."""
        document = {
            "windlass_manifest": 1,
            "job": self.instance.job_id,
            "task": self.instance.task,
            "index": self.instance.index,
            "attempt": self.ref.attempt,
            "fence": self.ref.fence,
            "outputs": [
                {"destination": str(target.location), "files": [_plain(one) for one in files]}
                for target, files in sorted(self.files.items(), key=lambda item: str(item[0].location))
            ],
            "left_out": list(self.left_out[:_LEFT_OUT_MOST]),
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def digest_of(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()


def files_of(manifest: bytes, target: OutputTarget) -> list[PublishedFile]:
    """What a manifest object that was found names for the target; none when it cannot be read."""
    try:
        document = json.loads(manifest)
        return [
            PublishedFile(
                name=str(one["name"]),
                size_bytes=int(one["bytes"]),
                sha256=str(one["sha256"]),
                md5=str(one["md5"]),
                parts_etag=str(one.get("parts_etag", "")),
            )
            for output in document["outputs"]
            if output["destination"] == str(target.location)
            for one in output["files"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def twice_named(files: Iterable[tuple[OutputTarget, str]]) -> ObjectLocation | None:
    """An object that two files want to be."""
    seen = set()
    for target, name in files:
        place = target.final(name)
        if place in seen:
            return place
        seen.add(place)
    return None


def _plain(one: PublishedFile) -> dict[str, object]:
    document: dict[str, object] = {
        "name": one.name,
        "bytes": one.size_bytes,
        "sha256": one.sha256,
        "md5": one.md5,
    }
    return document | ({"parts_etag": one.parts_etag} if one.parts_etag else {})
