"""What callers see of an error."""

import json

import grpc
import pytest

from windlass_coordinator.auth.identity import Unauthenticated
from windlass_coordinator.rpc.status import WireError, wire_error
from windlass_proto.errors import (
    Conflict,
    Denied,
    InvalidJob,
    InvalidRequest,
    NotFound,
    Problem,
    SessionLost,
    Unavailable,
    WindlassError,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound("x"), grpc.StatusCode.NOT_FOUND),
        (Conflict("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (SessionLost("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (Unavailable("x"), grpc.StatusCode.UNAVAILABLE),
        (Denied("x"), grpc.StatusCode.PERMISSION_DENIED),
        (Unauthenticated("x"), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
def test_each_class_has_its_status_and_its_own_code(error: WindlassError, status: grpc.StatusCode) -> None:
    assert wire_error(error) == WireError(
        status=status, details="x", trailers=(("windlass-error-code", error.code),)
    )


def test_an_error_without_a_class_of_its_own_is_not_shown() -> None:
    assert wire_error(WindlassError("x")) is None


def problems_of(error: InvalidJob) -> list[list[str]]:
    sent = wire_error(error)
    assert sent is not None
    content = dict(sent.trailers)["windlass-problems-bin"]
    return [list(pair) for pair in json.loads(content)]


def test_all_problems_of_a_job_are_sent() -> None:
    error = InvalidJob([Problem(path="tasks.a", message="no"), Problem(path="", message="empty")])

    assert problems_of(error) == [["tasks.a", "no"], ["", "empty"]]


def test_more_problems_than_metadata_can_hold_are_counted() -> None:
    error = InvalidJob([Problem(path=f"tasks.{n}", message="must be >= 1 (is 0)") for n in range(1000)])

    sent = problems_of(error)

    assert sent[0] == ["tasks.0", "must be >= 1 (is 0)"]
    assert 50 < len(sent) < 100
    assert sent[-1] == ["", f"and {1000 - (len(sent) - 1)} more problems"]


def test_long_messages_are_cut_to_what_metadata_can_hold() -> None:
    sent = wire_error(InvalidJob([Problem(path="é" * 9000, message="\U0001f600" * 9000)] * 9))

    assert sent is not None
    assert len(json.dumps(sent.details)) < 2048
    assert sum(len(key) + len(value) for key, value in sent.trailers) < 4096
