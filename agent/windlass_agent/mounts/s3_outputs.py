"""Outputs on S3 servers through boto3: several files at once, copies within the server, what is there.

Nothing relies on conditional writes or on metadata: many servers have neither. How one file is sent is in
`s3_sending`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from windlass_agent.mounts.base import BadMapping
from windlass_agent.mounts.output_store import FoundObject, Outgoing, Sent, UploadBook
from windlass_agent.mounts.s3_errors import translated
from windlass_agent.mounts.s3_sending import BufferRoom, FileSender, SendingStop, md5_header, plain_etag
from windlass_proto.model.storage import ObjectLocation

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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
        self._room = BufferRoom()

    def send_all(
        self,
        outgoing: Iterable[Outgoing],
        *,
        sent: Callable[[Outgoing, Sent], None],
        book: UploadBook,
        cancelled: Event,
    ) -> None:
        stop = SendingStop(cancelled)
        with ThreadPoolExecutor(self._threads, "part") as parts, ThreadPoolExecutor(self._threads) as files:
            sender = FileSender(self._client, parts, room=self._room, stop=stop, book=book)
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
            return plain_etag(reply.get("CopyObjectResult", {}).get("ETag", ""))

    def put(self, target: ObjectLocation, data: bytes) -> None:
        with translated(target):
            self._client.put_object(
                Bucket=target.bucket, Key=target.key, Body=data, ContentMD5=md5_header(data)
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
        return FoundObject(location=location, size_bytes=head["ContentLength"], etag=plain_etag(head["ETag"]))

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
                        etag=plain_etag(item["ETag"]),
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

    def drop_parts(self, directory: ObjectLocation, *, but: Collection[str] = ()) -> None:
        with suppress(ClientError, BotoCoreError):  # what a server cannot list it has to forget by itself
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=directory.bucket, Prefix=directory.key
            )
            found = [upload for page in pages for upload in page.get("Uploads", [])]
            for upload in found:
                if upload["UploadId"] not in but:
                    self._client.abort_multipart_upload(
                        Bucket=directory.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def abort(self, target: ObjectLocation, upload_id: str) -> None:
        with translated(target), suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(Bucket=target.bucket, Key=target.key, UploadId=upload_id)


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
