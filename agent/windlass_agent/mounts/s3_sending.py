"""How one file gets into an S3 server: in one request, or in parts with bounded memory.

An upload in parts that breaks is noted in a book and goes on where it was: parts that the server has already,
by size and MD5, are read once more for the sums of the whole and not sent again.
"""

import base64
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from threading import Condition, Event
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from windlass_agent.mounts.base import BadMapping, TransferCancelled
from windlass_agent.mounts.output_store import ChangedWhileRead, Outgoing, OutputSource, Sent, UploadBook
from windlass_agent.mounts.s3_errors import USERS_FAULT, translated
from windlass_proto.failpoints import reach
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
_MAY_PASS = (429, 500, 502, 503, 504)
"""Answers after which the same question may be answered otherwise."""
_NO_UPLOAD = "NoSuchUpload"
_OF_THE_UPLOAD = frozenset(
    {_NO_UPLOAD, "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "EntityTooLarge", "NotImplemented"}
)
"""Answers that say that an upload cannot go on, whoever asks and whenever."""
_STUCK_MOST = 5
"""Tries in which the server refuses every part that it lacks; then the upload begins again."""

log = structlog.get_logger()


class SendingStop:
    """Why nothing more is to be begun."""

    def __init__(self, cancelled: Event) -> None:
        self._cancelled, self.failed = cancelled, Event()

    @property
    def is_for_good(self) -> bool:
        """Nobody goes on with what is left."""
        return self._cancelled.is_set()

    def check(self) -> None:
        if self._cancelled.is_set() or self.failed.is_set():
            raise TransferCancelled("the upload was stopped")


class BufferRoom:
    """Counted in parts of the usual size: what is read waits until there is some."""

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


class FileSender:
    """Sends files; buffers of all of them together are bounded."""

    def __init__(
        self,
        client: "S3Client",
        parts: ThreadPoolExecutor,
        *,
        room: BufferRoom,
        stop: SendingStop,
        book: UploadBook,
    ) -> None:
        self._client, self._parts, self._room, self._stop = client, parts, room, stop
        self._book = book

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
            etag=plain_etag(reply.get("ETag", "")),
        )

    # -- in parts

    def _send_in_parts(self, source: OutputSource, target: ObjectLocation, first: bytes) -> Sent:
        """Has room for `first` already."""
        try:
            upload = self._opened(target)
        except BaseException:
            self._room.give_back()
            raise
        try:
            self._read_and_send(source, upload, first)
            upload.raise_problem()
            source.check(upload.size_bytes)
            return self._complete(upload)
        except BaseException as problem:
            wait(upload.parts)
            if self._stop.is_for_good or self._is_hopeless(upload, problem):
                self._abort(upload)
            raise

    def _is_hopeless(self, upload: "PartedUpload", problem: BaseException) -> bool:
        """Whether the server does not want this upload to go on, as if it can put no other part in the place
        of one that it has. No answer, or one about rights, says nothing about the upload."""
        if not isinstance(problem, ClientError) or _code(problem) in USERS_FAULT:
            return False
        if _code(problem) in _OF_THE_UPLOAD:
            return True
        return not upload.is_further and self._book.note_stuck(upload.target) >= _STUCK_MOST

    def _opened(self, target: ObjectLocation) -> "PartedUpload":
        """The one that was begun, if the server still has it; else a new one."""
        upload_id = self._book.begun(target)
        if upload_id:
            stored = self._stored(target, upload_id)
            if stored is not None:
                return PartedUpload(target=target, upload_id=upload_id, stored=stored)
        # Forgotten only when there is another: keys that are refused today may be good tomorrow.
        new_id = self._client.create_multipart_upload(Bucket=target.bucket, Key=target.key)["UploadId"]
        if upload_id:
            self._abort(PartedUpload(target=target, upload_id=upload_id))
        self._book.note_begun(target, new_id)
        return PartedUpload(target=target, upload_id=new_id)

    def _stored(self, target: ObjectLocation, upload_id: str) -> dict[int, tuple[int, str]] | None:
        """Size and ETag of the parts that the server has; None = it knows none, or may not tell."""
        try:
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=target.bucket, Key=target.key, UploadId=upload_id
            )
            found = {
                part["PartNumber"]: (part["Size"], part["ETag"])
                for page in pages
                for part in page.get("Parts", [])
            }
        except ClientError as problem:
            if problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _MAY_PASS:
                raise
            return None
        size_bytes = sum(size for size, _ in found.values())
        log.info("upload.resumed", target=str(target), parts=len(found), stored_bytes=size_bytes)
        return found

    def _abort(self, upload: "PartedUpload") -> None:
        target = upload.target
        with suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(
                Bucket=target.bucket, Key=target.key, UploadId=upload.upload_id
            )
        self._book.note_ended(target)

    def _read_and_send(self, source: OutputSource, upload: "PartedUpload", first: bytes) -> None:
        """Every buffer comes with its room; the part that it becomes gives it back. Ends early when a part
        has failed."""
        data, room = first, 1
        while data:
            upload.count(data)
            number = len(upload.parts) + 1
            upload.parts.append(self._parts.submit(self._send_part, upload, number, data, room))
            self._stop.check()
            if upload.has_failed.is_set():
                return
            room = upload.next_part()
            self._room.take(room)
            try:
                data = _read_full(source, room * PART_BYTES)
            except BaseException:
                self._room.give_back(room)
                raise
        self._room.give_back(room)

    def _send_part(self, upload: "PartedUpload", number: int, data: bytes, room: int) -> tuple[bytes, str]:
        try:
            self._stop.check()
            upload.check()
            md5 = hashlib.md5(data, usedforsecurity=False).digest()
            size_bytes, etag = upload.stored.get(number, (0, ""))
            if size_bytes == len(data) and plain_etag(etag) == md5.hex():
                return md5, etag
            reply = self._client.upload_part(
                Bucket=upload.target.bucket,
                Key=upload.target.key,
                UploadId=upload.upload_id,
                PartNumber=number,
                Body=data,
                ContentMD5=base64.b64encode(md5).decode(),
            )
            upload.is_further = True
            reach("agent.outputs.after_part")
            return md5, reply["ETag"]
        except BaseException:
            upload.has_failed.set()
            raise
        finally:
            self._room.give_back(room)

    def _complete(self, upload: "PartedUpload") -> Sent:
        done = [part.result() for part in upload.parts]
        of_parts = hashlib.md5(b"".join(md5 for md5, _ in done), usedforsecurity=False).hexdigest()
        parts_etag = f"{of_parts}-{len(done)}"
        self._stop.check()
        etag = self._joined(upload, [etag for _, etag in done], parts_etag)
        self._book.note_ended(upload.target)
        return Sent(
            size_bytes=upload.size_bytes,
            sha256=upload.sha256.hexdigest(),
            md5=upload.md5.hexdigest(),
            parts_etag=parts_etag,
            etag=etag,
        )

    def _joined(self, upload: "PartedUpload", etags: list[str], parts_etag: str) -> str:
        """What the server calls the object."""
        target = upload.target
        try:
            reply = self._client.complete_multipart_upload(
                Bucket=target.bucket,
                Key=target.key,
                UploadId=upload.upload_id,
                MultipartUpload={
                    "Parts": [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
                },
            )
        except ClientError as problem:
            if _code(problem) != _NO_UPLOAD:
                raise
            # Asked twice, as the first reply was lost: the object is there then.
            if not self._is_there(target, upload.size_bytes, parts_etag):
                raise
            return parts_etag
        return plain_etag(reply.get("ETag", ""))

    def _is_there(self, target: ObjectLocation, size_bytes: int, etag: str) -> bool:
        try:
            head = self._client.head_object(Bucket=target.bucket, Key=target.key)
        except ClientError:
            return False
        return (head["ContentLength"], plain_etag(head["ETag"])) == (size_bytes, etag)


class PartedUpload:
    """One object on its way in parts."""

    def __init__(
        self, *, target: ObjectLocation, upload_id: str, stored: dict[int, tuple[int, str]] | None = None
    ) -> None:
        self.target, self.upload_id = target, upload_id
        self.stored = stored or {}
        """Size and ETag of parts, by number, that the server had before."""
        self.parts: list[Future[tuple[bytes, str]]] = []
        self.has_failed = Event()
        self.is_further = False
        """A part was stored since it was opened."""
        self.size_bytes = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sha256 = hashlib.sha256()

    def count(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self.md5.update(data)
        self.sha256.update(data)

    def next_part(self) -> int:
        """Its size, in parts of the usual one; by number only: one that goes on has the same parts."""
        return min(1 << (len(self.parts) // _GROWS_AFTER), _ROOM_PARTS)

    def check(self) -> None:
        if self.has_failed.is_set():
            raise TransferCancelled("another part has failed")

    def raise_problem(self) -> None:
        """Of the part that failed first by itself, when all have ended."""
        problems = [problem for part in self.parts if (problem := part.exception()) is not None]
        problems.sort(key=lambda problem: isinstance(problem, TransferCancelled))
        if problems:
            raise problems[0]


def md5_header(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def plain_etag(etag: str) -> str:
    return etag.strip('"').lower()


def _code(problem: ClientError) -> str:
    return problem.response.get("Error", {}).get("Code", "")


def _read_full(source: OutputSource, size: int) -> bytes:
    pieces: list[bytes] = []
    left = size
    while left and (piece := source.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
