"""Outputs on S3 servers through boto3: uploads in parts with bounded memory, copies within the server.

Nothing relies on conditional writes or on metadata: many servers have neither.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from threading import Condition, Event
from typing import TYPE_CHECKING

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from windlass_agent.mounts.base import BadMapping, TransferCancelled
from windlass_agent.mounts.output_store import (
    ChangedWhileRead,
    FoundObject,
    Outgoing,
    OutputSource,
    Sent,
)
from windlass_agent.mounts.s3_errors import translated
from windlass_proto.model.storage import ObjectLocation

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES = 8 << 20
_ROOM_PARTS = 8
"""In memory at once, for all attempts that use a storage: memory is bounded whatever is uploaded."""
_GROWS_AFTER = 1_000
"""S3 takes 10,000 parts of an object, so those of a very large one grow; up to all the room there is."""
_READINGS_MOST = 5
"""Of a file that changes under the reader."""
_COPY_WHOLE_BYTES = 5 << 30
"""S3 copies no more in one request."""
_COPY_IN_PARTS = TransferConfig(
    multipart_threshold=_COPY_WHOLE_BYTES, multipart_chunksize=1 << 30, max_concurrency=4
)
_REMOVED_AT_ONCE = 1_000


class S3Outputs:
    """Implements `output_store.OutputStore`."""

    def __init__(self, client: "S3Client", *, threads: int) -> None:
        self._client, self._threads = client, threads
        self._room = _Room()

    def send_all(
        self, outgoing: Iterable[Outgoing], *, sent: Callable[[Outgoing, Sent], None], cancelled: Event
    ) -> None:
        stop = _Stop(cancelled)
        with ThreadPoolExecutor(self._threads, "part") as parts, ThreadPoolExecutor(self._threads) as files:
            sender = _Sender(self._client, parts, self._room, stop)
            under_way: dict[Future[Sent], Outgoing] = {}
            try:
                for one in outgoing:
                    under_way[files.submit(sender.send, one)] = one
                    if len(under_way) >= 2 * self._threads:
                        _collect(under_way, sent)
                while under_way:
                    _collect(under_way, sent)
            except BaseException:
                stop.failed.set()
                raise

    def copy(self, source: ObjectLocation, target: ObjectLocation, *, size_bytes: int) -> str:
        with translated(target):
            if size_bytes > _COPY_WHOLE_BYTES:
                self._client.copy(
                    {"Bucket": source.bucket, "Key": source.key},
                    target.bucket,
                    target.key,
                    Config=_COPY_IN_PARTS,
                )
                made = self.look(target)
                return made.etag if made is not None else ""
            reply = self._client.copy_object(
                Bucket=target.bucket,
                Key=target.key,
                CopySource={"Bucket": source.bucket, "Key": source.key},
            )
            return _plain(reply.get("CopyObjectResult", {}).get("ETag", ""))

    def put(self, target: ObjectLocation, data: bytes) -> None:
        with translated(target):
            self._client.put_object(
                Bucket=target.bucket, Key=target.key, Body=data, ContentMD5=_md5_header(data)
            )

    def get(self, source: ObjectLocation) -> bytes | None:
        try:
            with translated(source, missing_is=LookupError):
                return self._client.get_object(Bucket=source.bucket, Key=source.key)["Body"].read()
        except LookupError:
            return None

    def look(self, location: ObjectLocation) -> FoundObject | None:
        try:
            with translated(location, missing_is=LookupError):
                head = self._client.head_object(Bucket=location.bucket, Key=location.key)
        except LookupError:
            return None
        return FoundObject(location=location, size_bytes=head["ContentLength"], etag=_plain(head["ETag"]))

    def below(self, directory: ObjectLocation, *, first: str = "") -> Iterator[FoundObject]:
        # StartAfter leaves out the key that it names, so it is given a shorter one.
        after = directory.key + first[:-1]
        with translated(directory):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=directory.bucket, Prefix=directory.key, StartAfter=after
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield FoundObject(
                        location=replace(directory, key=item["Key"]),
                        size_bytes=item["Size"],
                        etag=_plain(item["ETag"]),
                    )

    def directories(self, directory: ObjectLocation) -> list[ObjectLocation]:
        with translated(directory):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=directory.bucket, Prefix=directory.key, Delimiter="/"
            )
            return [
                replace(directory, key=found["Prefix"])
                for page in pages
                for found in page.get("CommonPrefixes", [])
            ]

    def remove(self, locations: Sequence[ObjectLocation]) -> None:
        for begin in range(0, len(locations), _REMOVED_AT_ONCE):
            some = locations[begin : begin + _REMOVED_AT_ONCE]
            try:
                with translated(some[0]):
                    self._client.delete_objects(
                        Bucket=some[0].bucket,
                        Delete={"Quiet": True, "Objects": [{"Key": one.key} for one in some]},
                    )
            except BadMapping:
                # Servers that want another checksum of the list than the one they are given.
                self._remove_singly(some)

    def _remove_singly(self, locations: Sequence[ObjectLocation]) -> None:
        for one in locations:
            with translated(one), suppress(self._client.exceptions.NoSuchKey):
                self._client.delete_object(Bucket=one.bucket, Key=one.key)

    def drop_parts(self, directory: ObjectLocation) -> None:
        with suppress(ClientError, BotoCoreError):  # what a server cannot list it has to forget by itself
            reply = self._client.list_multipart_uploads(Bucket=directory.bucket, Prefix=directory.key)
            for upload in reply.get("Uploads", []):
                self._client.abort_multipart_upload(
                    Bucket=directory.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )


class _Stop:
    """Why nothing more is to be begun."""

    def __init__(self, cancelled: Event) -> None:
        self._cancelled, self.failed = cancelled, Event()

    def check(self) -> None:
        if self._cancelled.is_set() or self.failed.is_set():
            raise TransferCancelled("the upload was stopped")


class _Room:
    """For buffers, counted in parts of the usual size: what is read waits until there is some."""

    def __init__(self) -> None:
        self._free = _ROOM_PARTS
        self._changed = Condition()

    def take(self, parts: int = 1) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= parts)
            self._free -= parts

    def give_back(self, parts: int = 1) -> None:
        with self._changed:
            self._free += parts
            self._changed.notify_all()


class _Sender:
    """Sends files; buffers of all of them together are bounded."""

    def __init__(self, client: "S3Client", parts: ThreadPoolExecutor, room: _Room, stop: _Stop) -> None:
        self._client, self._parts, self._room, self._stop = client, parts, room, stop

    def send(self, one: Outgoing) -> Sent:
        for _ in range(_READINGS_MOST):
            self._stop.check()
            try:
                with translated(one.target), one.open() as source:
                    return self._send(source, one.target)
            except ChangedWhileRead:
                continue
        raise BadMapping(f"{one.target}: its file changes while it is read; nothing may write it any more")

    def _send(self, source: OutputSource, target: ObjectLocation) -> Sent:
        self._room.take()
        is_whole = True
        try:
            data = _read_full(source, PART_BYTES)
            is_whole = len(data) < PART_BYTES
            if is_whole:
                source.check(len(data))
                return self._put(target, data)
        finally:
            if is_whole:
                self._room.give_back()
        return self._send_in_parts(source, target, data)

    def _put(self, target: ObjectLocation, data: bytes) -> Sent:
        self._stop.check()
        md5 = hashlib.md5(data, usedforsecurity=False)
        reply = self._client.put_object(
            Bucket=target.bucket,
            Key=target.key,
            Body=data,
            ContentMD5=base64.b64encode(md5.digest()).decode(),
        )
        return Sent(
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            md5=md5.hexdigest(),
            parts_etag="",
            etag=_plain(reply.get("ETag", "")),
        )

    def _send_in_parts(self, source: OutputSource, target: ObjectLocation, first: bytes) -> Sent:
        """Has room for `first` already."""
        try:
            upload_id = self._client.create_multipart_upload(Bucket=target.bucket, Key=target.key)["UploadId"]
        except BaseException:
            self._room.give_back()
            raise
        upload = _Upload(target=target, upload_id=upload_id)
        try:
            self._read_and_send(source, upload, first)
            source.check(upload.size_bytes)
            return self._complete(upload)
        except BaseException:
            wait(upload.parts)
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(Bucket=target.bucket, Key=target.key, UploadId=upload_id)
            raise

    def _read_and_send(self, source: OutputSource, upload: "_Upload", first: bytes) -> None:
        """Every buffer comes with its room; the part that it becomes gives it back."""
        data, room = first, 1
        while data:
            upload.count(data)
            number = len(upload.parts) + 1
            upload.parts.append(self._parts.submit(self._send_part, upload, number, data, room))
            self._stop.check()
            room = upload.next_part()
            self._room.take(room)
            try:
                data = _read_full(source, room * PART_BYTES)
            except BaseException:
                self._room.give_back(room)
                raise
        self._room.give_back(room)

    def _send_part(self, upload: "_Upload", number: int, data: bytes, room: int) -> tuple[bytes, str]:
        try:
            self._stop.check()
            md5 = hashlib.md5(data, usedforsecurity=False).digest()
            reply = self._client.upload_part(
                Bucket=upload.target.bucket,
                Key=upload.target.key,
                UploadId=upload.upload_id,
                PartNumber=number,
                Body=data,
                ContentMD5=base64.b64encode(md5).decode(),
            )
            return md5, reply["ETag"]
        finally:
            self._room.give_back(room)

    def _complete(self, upload: "_Upload") -> Sent:
        done = [part.result() for part in upload.parts]
        self._stop.check()
        target = upload.target
        reply = self._client.complete_multipart_upload(
            Bucket=target.bucket,
            Key=target.key,
            UploadId=upload.upload_id,
            MultipartUpload={
                "Parts": [{"PartNumber": number, "ETag": etag} for number, (_, etag) in enumerate(done, 1)]
            },
        )
        of_parts = hashlib.md5(b"".join(md5 for md5, _ in done), usedforsecurity=False).hexdigest()
        return Sent(
            size_bytes=upload.size_bytes,
            sha256=upload.sha256.hexdigest(),
            md5=upload.md5.hexdigest(),
            parts_etag=f"{of_parts}-{len(done)}",
            etag=_plain(reply.get("ETag", "")),
        )


class _Upload:
    """One object on its way in parts."""

    def __init__(self, *, target: ObjectLocation, upload_id: str) -> None:
        self.target, self.upload_id = target, upload_id
        self.parts: list[Future[tuple[bytes, str]]] = []
        self.size_bytes = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sha256 = hashlib.sha256()

    def count(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self.md5.update(data)
        self.sha256.update(data)

    def next_part(self) -> int:
        """Its size, in parts of the usual one."""
        return min(1 << (len(self.parts) // _GROWS_AFTER), _ROOM_PARTS)


def _collect(under_way: dict[Future[Sent], Outgoing], sent: Callable[[Outgoing, Sent], None]) -> None:
    """Waits for one or more; raises what the first of them raised, when all of them are told."""
    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    problem: BaseException | None = None
    for future in done:
        one = under_way.pop(future)
        failure = future.exception()
        if failure is None:
            sent(one, future.result())
        problem = problem or failure
    if problem is not None:
        raise problem


def _read_full(source: OutputSource, size: int) -> bytes:
    pieces: list[bytes] = []
    left = size
    while left and (piece := source.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _md5_header(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _plain(etag: str) -> str:
    return etag.strip('"').lower()
