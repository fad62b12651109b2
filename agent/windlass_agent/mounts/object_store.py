"""S3 servers through boto3, for oss://, cos:// and s3:// alike (decision D8)."""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event
from typing import TYPE_CHECKING

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from windlass_agent.mounts.base import (
    BadMapping,
    ObjectIdentity,
    SeenObject,
    Survey,
    TransferCancelled,
)
from windlass_agent.mounts.s3_errors import translated
from windlass_agent.mounts.s3_outputs import S3Outputs
from windlass_proto.model.storage import ObjectLocation, StorageProfile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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
                    s3={
                        "addressing_style": "path" if profile.path_style else "auto",
                        # What is sent has its MD5 in a header that is signed: no second sum of all bytes.
                        "payload_signing_enabled": False,
                    },
                    max_pool_connections=max(2 * threads, 10),
                )
            ),
        )
        self.outputs = S3Outputs(self._client, threads=threads)

    def survey(self, source: ObjectLocation, *, most: int) -> Survey:
        prefix = source.key if source.is_directory else source.key + "/"
        with translated(source):
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
        with translated(source), ThreadPoolExecutor(self._threads, "fetch") as pool:
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
        with translated(source):
            self._fetch(path, source.key, bucket=source.bucket, cancelled=cancelled)

    def identity_of(self, source: ObjectLocation) -> ObjectIdentity:
        with translated(source):
            head = self._client.head_object(Bucket=source.bucket, Key=source.key)
        # Without one nothing tells whether the object is still the same.
        etag = head.get("ETag") or uuid.uuid4().hex
        parts = (self._client.meta.endpoint_url, source.bucket, source.key, etag)
        told = "\n".join((*parts, str(head["ContentLength"]), str(head.get("LastModified", ""))))
        return ObjectIdentity(
            name=hashlib.sha256(told.encode()).hexdigest(), size_bytes=head["ContentLength"]
        )

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


def _place(directory: Path, key: str, name: str) -> Path:
    """Where an object lands. An object's key may hold anything; only plain relative paths are files."""
    parts = name.rstrip("/").split("/")
    if name != "" and any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise BadMapping(f"the object key {key!r} cannot be a path; rename it or map another directory")
    return directory / name


def _go_on(cancelled: Event) -> None:
    if cancelled.is_set():
        raise TransferCancelled("the transfer was stopped")


def _watching(cancelled: Event) -> Callable[[int], None]:
    def progress(_transferred: int) -> None:
        _go_on(cancelled)

    return progress
