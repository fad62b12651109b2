"""S3 servers through boto3, for oss://, cos:// and s3:// alike (decision D8)."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event
from typing import TYPE_CHECKING, BinaryIO

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

from windlass_agent.mounts.base import (
    BadMapping,
    ObjectIdentity,
    SeenObject,
    StorageUnavailable,
    Survey,
    TransferCancelled,
)
from windlass_proto.model.storage import ObjectLocation, StorageProfile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_USERS_FAULT = frozenset(
    {
        "NoSuchBucket",
        "NoSuchKey",
        "InvalidBucketName",
        "AccessDenied",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "401",
        "403",
        "404",
    }
)
_CONFIG = Config(
    # The newer default adds checksums that many servers other than AWS's do not know.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    retries={"mode": "standard", "total_max_attempts": 5},
    connect_timeout=5,
    read_timeout=60,
)
# One thread per object, several objects at once: memory stays at one chunk per thread.
_TRANSFER = TransferConfig(use_threads=False, multipart_threshold=16 << 20, multipart_chunksize=16 << 20)


class ObjectStore:
    """One S3 server."""

    def __init__(self, profile: StorageProfile, *, threads: int) -> None:
        self._threads, self.profile = threads, profile
        signed = bool(profile.access_key)
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=profile.endpoint or None,
            region_name=profile.region,
            aws_access_key_id=profile.access_key or None,
            aws_secret_access_key=profile.secret_key or None,
            config=_CONFIG.merge(
                Config(
                    signature_version=None if signed else UNSIGNED,
                    s3={"addressing_style": "path" if profile.path_style else "auto"},
                    max_pool_connections=max(threads, 10),
                )
            ),
        )

    def survey(self, source: ObjectLocation, *, most: int) -> Survey:
        prefix = source.key if source.is_directory else source.key + "/"
        with _translated(source):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=source.bucket, Prefix=prefix, PaginationConfig={"MaxItems": most + 1}
            )
            seen = [
                SeenObject(
                    name=item["Key"][len(prefix) :], size_bytes=item["Size"], modified=item["LastModified"]
                )
                for page in pages
                for item in page.get("Contents", [])
                if item["Key"] != prefix
            ]
            is_object = not seen and not source.is_directory and self._exists(source)
        return Survey(objects=tuple(seen[:most]), is_whole=len(seen) <= most, is_object=is_object)

    def fetch_directory(self, source: ObjectLocation, directory: Path, *, cancelled: Event) -> None:
        with _translated(source), ThreadPoolExecutor(self._threads, "fetch") as pool:
            found = False
            fetch = partial(self._fetch, bucket=source.bucket, cancelled=cancelled)
            prefix = source.key if source.is_directory else source.key + "/"
            for keys in self._keys(source.bucket, prefix):
                found = True
                paths = [_place(directory, key, key[len(prefix) :]) for key in keys]
                list(pool.map(fetch, paths, keys))
            if not found and not source.is_directory and self._exists(source):
                name = PurePosixPath(source.key).name
                fetch(directory / name, source.key)

    def fetch_file(self, source: ObjectLocation, path: Path, *, cancelled: Event) -> None:
        with _translated(source):
            self._fetch(path, source.key, bucket=source.bucket, cancelled=cancelled)

    def identity_of(self, source: ObjectLocation) -> ObjectIdentity:
        with _translated(source):
            head = self._client.head_object(Bucket=source.bucket, Key=source.key)
        parts = (self._client.meta.endpoint_url, source.bucket, source.key, head["ETag"])
        told = "\n".join((*parts, str(head["ContentLength"]), head["LastModified"].isoformat()))
        return ObjectIdentity(
            name=hashlib.sha256(told.encode()).hexdigest(), size_bytes=head["ContentLength"]
        )

    def store_directory(self, directory: Path, target: ObjectLocation, *, cancelled: Event) -> None:
        with _translated(target), ThreadPoolExecutor(self._threads, "store") as pool:
            for paths in _in_groups(_regular_files(directory), 1000):
                targets = [target.child(path.relative_to(directory).as_posix()) for path in paths]
                list(pool.map(partial(self._store, cancelled=cancelled), paths, targets))

    def store_stream(self, stream: BinaryIO, target: ObjectLocation, *, cancelled: Event) -> None:
        with _translated(target):
            self._upload(stream, target, cancelled)

    def _keys(self, bucket: str, prefix: str) -> Iterator[list[str]]:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            keys = [item["Key"] for item in page.get("Contents", [])]
            if keys:
                yield keys

    def _exists(self, location: ObjectLocation) -> bool:
        try:
            self._client.head_object(Bucket=location.bucket, Key=location.key)
        except ClientError as problem:
            if problem.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                return False
            raise
        return True

    def _fetch(self, path: Path, key: str, *, bucket: str, cancelled: Event) -> None:
        _go_on(cancelled)
        if key.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            self._client.download_fileobj(bucket, key, file, Callback=_watching(cancelled), Config=_TRANSFER)

    def _store(self, path: Path, target: ObjectLocation, *, cancelled: Event) -> None:
        _go_on(cancelled)
        # The file was made by the user's command: a link in its place must not be followed out.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            self._upload(file, target, cancelled)

    def _upload(self, stream: BinaryIO, target: ObjectLocation, cancelled: Event) -> None:
        self._client.upload_fileobj(
            stream, target.bucket, target.key, Callback=_watching(cancelled), Config=_TRANSFER
        )


def _place(directory: Path, key: str, name: str) -> Path:
    """Where an object lands. An object's key may hold anything; only plain relative paths are files."""
    parts = name.rstrip("/").split("/")
    if name != "" and any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise BadMapping(f"the object key {key!r} cannot be a path; rename it or map another directory")
    return directory / name


def _regular_files(directory: Path) -> Iterator[Path]:
    """Every regular file below the directory; links, devices and sockets are not outputs."""
    if not stat.S_ISDIR(_mode(directory)):
        return
    for root, folders, names in os.walk(directory, followlinks=False):
        folders.sort()
        yield from (path for name in sorted(names) if stat.S_ISREG(_mode(path := Path(root, name))))


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _in_groups(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    group: list[Path] = []
    for path in paths:
        group.append(path)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _go_on(cancelled: Event) -> None:
    if cancelled.is_set():
        raise TransferCancelled("the transfer was stopped")


def _watching(cancelled: Event) -> Callable[[int], None]:
    def progress(_transferred: int) -> None:
        _go_on(cancelled)

    return progress


@contextmanager
def _translated(location: ObjectLocation) -> Iterator[None]:
    """boto3's exceptions, and those of the local disk, as ours."""
    try:
        yield
    except ClientError as problem:
        error = problem.response.get("Error", {})
        sentence = f"{location}: {error.get('Code', '?')}: {error.get('Message', 'no reason given')}"
        if error.get("Code") in _USERS_FAULT:
            raise BadMapping(sentence) from problem
        raise StorageUnavailable(sentence) from problem
    except (ParamValidationError, NoCredentialsError) as problem:
        raise BadMapping(f"{location}: {problem}") from problem
    except BotoCoreError as problem:
        raise StorageUnavailable(f"{location}: {problem}") from problem
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as problem:
        raise BadMapping(f"{location}: an object and a directory have the same name: {problem}") from problem
    except OSError as problem:
        raise StorageUnavailable(f"{location}: on this node: {problem}") from problem
