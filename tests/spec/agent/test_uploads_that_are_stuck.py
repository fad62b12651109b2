"""When an upload in parts that the server does not let go on is begun again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from windlass_agent.mounts.base import StorageUnavailable, StoreRefused
from windlass_agent.mounts.output_store import Outgoing, OutputSource
from windlass_agent.mounts.s3_sending import PART_BYTES, BufferRoom, FileSender, SendingStop
from windlass_proto.model.storage import ObjectLocation, parse_object_url

TARGET = parse_object_url("oss://b/large")


class Book:
    """Of one target."""

    def __init__(self) -> None:
        self.upload_id, self.stuck = "", 0

    def begun(self, target: ObjectLocation) -> str:
        return self.upload_id

    def note_begun(self, target: ObjectLocation, upload_id: str) -> None:
        self.upload_id = upload_id

    def note_stuck(self, target: ObjectLocation) -> int:
        self.stuck += 1
        return self.stuck

    def note_ended(self, target: ObjectLocation) -> None:
        self.upload_id, self.stuck = "", 0


class RefusingServer:
    """Takes no part; a client of botocore's as far as the sender uses it."""

    def __init__(self, problem: Exception) -> None:
        self.problem, self.begun, self.aborted = problem, 0, 0

    def create_multipart_upload(self, **_: Any) -> dict[str, str]:
        self.begun += 1
        return {"UploadId": str(self.begun)}

    def abort_multipart_upload(self, **_: Any) -> None:
        self.aborted += 1

    def get_paginator(self, _: str) -> "RefusingServer":
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{}]

    def upload_part(self, **_: Any) -> None:
        raise self.problem


class TwoParts:
    def __init__(self) -> None:
        self._left = 2

    def read(self, size: int, /) -> bytes:
        self._left -= 1
        return bytes(PART_BYTES) if self._left >= 0 else b""

    def check(self, read_bytes: int) -> None:
        return


@contextmanager
def a_source() -> Iterator[OutputSource]:
    yield TwoParts()


def answered(status: int, code: str) -> ClientError:
    told: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(told, "UploadPart")


@pytest.mark.parametrize(
    ("problem", "begun", "aborted"),
    [
        (answered(503, "SlowDown"), 2, 1),
        (answered(400, "RequestTimeout"), 2, 1),
        (answered(501, "NotImplemented"), 6, 6),
        (answered(403, "AccessDenied"), 1, 0),
        (EndpointConnectionError(endpoint_url="http://there"), 1, 0),
    ],
    ids=["not now, five times", "too slow, five times", "never", "not with these keys", "no answer"],
)
def test_of_six_tries_some_begin_again(problem: Exception, begun: int, aborted: int) -> None:
    server, book = RefusingServer(problem), Book()
    room = BufferRoom()
    for _ in range(6):
        with ThreadPoolExecutor(2) as parts:
            client: Any = server
            sender = FileSender(client, parts, room=room, stop=SendingStop(Event()), book=book)
            with pytest.raises((StorageUnavailable, StoreRefused)):
                sender.send(Outgoing(target=TARGET, open=a_source))
    assert (server.begun, server.aborted) == (begun, aborted)
    room.take(8)  # all of it was given back, or this hangs
