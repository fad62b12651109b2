"""Files in object storage, for the command line and for packages: list, read, copy, remove.

boto3 is imported when the first call is made: it takes a third of a second, and most commands need none.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from windlass_proto.errors import Denied, InvalidRequest, NotFound, Unavailable, WindlassError
from windlass_proto.model.storage import ObjectLocation, StorageProfile, StorageProfiles, parse_object_url

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CHUNK_BYTES = 1024 * 1024
_REMOVE_BATCH = 1000
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 60
_TRIES_MAX = 3

Progress = Callable[[int], None]
"""Is told how many further bytes were moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object, or one common prefix (`is_prefix`) of a listing that does not descend."""

    location: ObjectLocation
    size_bytes: int = 0
    modified_at: datetime | None = None
    is_prefix: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCopy:
    """One file to move; which side is local says the direction."""

    source: ObjectLocation | Path
    target: ObjectLocation | Path
    size_bytes: int


def location_of(url: str) -> ObjectLocation:
    """Raises InvalidRequest for what is no object URL."""
    try:
        return parse_object_url(url)
    except ValueError as error:
        raise InvalidRequest(f"the address {error}") from error


class RemoteFiles:
    """The servers that a profile's storage file knows, by scheme."""

    def __init__(self, profiles: StorageProfiles) -> None:
        self._profiles = profiles
        self._clients: dict[str, S3Client] = {}

    def buckets(self, scheme: str) -> list[ObjectLocation]:
        with _Translated(f"{scheme}://"):
            found = self._client(scheme).list_buckets()
        return [
            ObjectLocation(scheme=scheme, bucket=bucket["Name"], key="")
            for bucket in found.get("Buckets", ())
        ]

    def listing(self, location: ObjectLocation, *, recursive: bool = False) -> Iterator[StoredObject]:
        """What lies below a directory (or begins with a key), in the order of the keys."""
        pages = self._client(location.scheme).get_paginator("list_objects_v2")
        asked: dict[str, str] = {"Bucket": location.bucket, "Prefix": location.key}
        if not recursive:
            asked["Delimiter"] = "/"
        with _Translated(location):
            for page in pages.paginate(**asked):  # type: ignore[arg-type]  # built from text only
                for prefix in page.get("CommonPrefixes", ()):
                    yield StoredObject(location=_at(location, prefix["Prefix"]), is_prefix=True)
                for entry in page.get("Contents", ()):
                    yield StoredObject(
                        location=_at(location, entry["Key"]),
                        size_bytes=entry["Size"],
                        modified_at=entry["LastModified"],
                    )

    def size_of(self, location: ObjectLocation) -> int | None:
        """In bytes; None when there is no such object."""
        try:
            with _Translated(location):
                head = self._client(location.scheme).head_object(Bucket=location.bucket, Key=location.key)
        except NotFound:
            return None
        return head["ContentLength"]

    def read(self, location: ObjectLocation) -> Iterator[bytes]:
        """The object's bytes, piece by piece."""
        with _Translated(location):
            found = self._client(location.scheme).get_object(Bucket=location.bucket, Key=location.key)
            yield from found["Body"].iter_chunks(CHUNK_BYTES)

    def upload(self, source: Path, target: ObjectLocation, *, progress: Progress | None = None) -> None:
        with _Translated(target):
            self._client(target.scheme).upload_file(
                str(source), target.bucket, target.key, Callback=progress or _ignore
            )

    def download(self, source: ObjectLocation, target: Path, *, progress: Progress | None = None) -> None:
        """Folders on the way are made; a partial file never has the final name (boto3 renames it)."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with _Translated(source):
            self._client(source.scheme).download_file(
                source.bucket, source.key, str(target), Callback=progress or _ignore
            )

    def copy(self, planned: PlannedCopy, *, progress: Progress | None = None) -> None:
        """Carries out one step of `plan_copy`."""
        match planned.source, planned.target:
            case Path() as source, ObjectLocation() as target:
                self.upload(source, target, progress=progress)
            case ObjectLocation() as source, Path() as target:
                self.download(source, target, progress=progress)
            case _:
                raise InvalidRequest("one side of a copy must be an object URL and the other a local path")

    def plan_copy(self, source: str, target: str, *, recursive: bool = False) -> list[PlannedCopy]:
        """What `cp` would move: one file, or everything below a folder or directory."""
        if "://" in source and "://" not in target:
            return self._plan_download(location_of(source), Path(target), recursive=recursive)
        if "://" in target and "://" not in source:
            return _plan_upload(Path(source), location_of(target), recursive=recursive)
        raise InvalidRequest("one side of a copy must be an object URL and the other a local path")

    def remove(self, location: ObjectLocation, *, recursive: bool = False) -> int:
        """How many objects were removed. A directory needs `recursive`."""
        client = self._client(location.scheme)
        if not recursive:
            if location.is_directory:
                raise InvalidRequest(f"{location} is a directory: add --recursive to remove all below it")
            if self.size_of(location) is None:
                raise NotFound(f"there is no object {location}")
            with _Translated(location):
                client.delete_object(Bucket=location.bucket, Key=location.key)
            return 1
        keys = [found.location.key for found in self.listing(_as_directory(location), recursive=True)]
        with _Translated(location):
            for start in range(0, len(keys), _REMOVE_BATCH):
                batch = [{"Key": key} for key in keys[start : start + _REMOVE_BATCH]]
                answer: Any = client.delete_objects(
                    Bucket=location.bucket,
                    Delete={"Objects": batch, "Quiet": True},  # type: ignore[typeddict-item]  # list of Key
                )
                for failed in answer.get("Errors", ())[:1]:
                    raise WindlassError(f"cannot remove {failed.get('Key')}: {failed.get('Message')}")
        return len(keys)

    def _plan_download(self, source: ObjectLocation, target: Path, *, recursive: bool) -> list[PlannedCopy]:
        if recursive or source.is_directory:
            return list(self._plan_directory(_as_directory(source), target))
        size_bytes = self.size_of(source)
        if size_bytes is None:
            raise NotFound(f"there is no object {source} (for a directory, add a slash or --recursive)")
        final = target / PurePosixPath(source.key).name if target.is_dir() else target
        return [PlannedCopy(source=source, target=final, size_bytes=size_bytes)]

    def _plan_directory(self, source: ObjectLocation, target: Path) -> Iterator[PlannedCopy]:
        for found in self.listing(source, recursive=True):
            relative = PurePosixPath(found.location.key.removeprefix(source.key))
            if found.location.is_directory:
                continue
            if ".." in relative.parts or relative.is_absolute():
                raise InvalidRequest(f"{found.location} would be written outside {target}")
            yield PlannedCopy(source=found.location, target=target / relative, size_bytes=found.size_bytes)

    def _client(self, scheme: str) -> "S3Client":
        if scheme not in self._clients:
            try:
                profile = self._profiles.for_scheme(scheme)
            except LookupError as error:
                raise InvalidRequest(str(error)) from error
            self._clients[scheme] = _connect(profile)
        return self._clients[scheme]


def _connect(profile: StorageProfile) -> "S3Client":
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=profile.endpoint or None,
        region_name=profile.region,
        aws_access_key_id=profile.access_key or None,
        aws_secret_access_key=profile.secret_key or None,
        config=Config(
            s3={"addressing_style": "path" if profile.path_style else "virtual"},
            # Checksums over ranges and in trailers are not understood by every S3 server.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"total_max_attempts": _TRIES_MAX, "mode": "standard"},
        ),
    )


class _Translated:
    """Turns the library's errors into ours; `what` is named in the message."""

    def __init__(self, what: object) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from boto3.exceptions import Boto3Error, S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        # An upload wraps the server's answer in an error of its own.
        answer = error.__context__ if isinstance(error, S3UploadFailedError) else error
        if isinstance(answer, ClientError):
            raise self._from_answer(answer) from error
        if isinstance(error, Boto3Error | BotoCoreError):
            raise Unavailable(f"the object store failed at {self._what}: {error}") from error

    def _from_answer(self, error: Any) -> WindlassError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("404", "NoSuchKey", "NotFound"):
            return NotFound(f"there is no object {self._what}")
        if code == "NoSuchBucket":
            return NotFound(f"{_bucket_of(self._what)} does not exist; `windlass store ls` lists the buckets")
        if code in ("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            return Denied(
                f"the object store refuses {self._what} ({code}): check the keys in the storage file"
            )
        return WindlassError(f"the object store failed at {self._what}: {error}")


def _bucket_of(what: object) -> str:
    return f"the bucket {what.scheme}://{what.bucket}/" if isinstance(what, ObjectLocation) else f"{what}"


def _plan_upload(source: Path, target: ObjectLocation, *, recursive: bool) -> list[PlannedCopy]:
    if not source.exists():
        raise NotFound(f"there is no file or folder {source}")
    if not source.is_dir():
        final = target.child(source.name) if target.is_directory else target
        return [PlannedCopy(source=source, target=final, size_bytes=source.stat().st_size)]
    if not recursive:
        raise InvalidRequest(f"{source} is a folder: add --recursive to copy all in it")
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return [
        PlannedCopy(
            source=path,
            target=target.child(path.relative_to(source).as_posix()),
            size_bytes=path.stat().st_size,
        )
        for path in files
    ]


def _at(location: ObjectLocation, key: str) -> ObjectLocation:
    return ObjectLocation(scheme=location.scheme, bucket=location.bucket, key=key)


def _as_directory(location: ObjectLocation) -> ObjectLocation:
    return location if location.is_directory else _at(location, location.key + "/")


def _ignore(_: int) -> None:
    return None
