"""How our errors look on the wire: the only module that knows gRPC status codes.

Besides the code and one sentence, the trailing metadata carry `windlass-error-code`, for a job with problems
`windlass-problems-bin`: a JSON list of [path, message], and for a call that was one too many
`grpc-retry-pushback-ms`: how long to wait. Metadata beyond 8 KiB make the whole answer fail, so long lists
are cut and say how many more there are.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from windlass_proto.errors import InvalidJob, Overloaded, Problem, WindlassError

CODE_KEY = "windlass-error-code"
PROBLEMS_KEY = "windlass-problems-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"

_MAX_DETAILS_BYTES = 1024
_MAX_PROBLEMS_BYTES = 3072
"""In transit these may grow by a third."""
_STATUS = {
    "INVALID_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_JOB": grpc.StatusCode.INVALID_ARGUMENT,
    "NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "CONFLICT": grpc.StatusCode.FAILED_PRECONDITION,
    "SESSION_LOST": grpc.StatusCode.FAILED_PRECONDITION,
    "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "NO_ROOM": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WireError:
    """An error as gRPC sends it."""

    status: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, str | bytes], ...]


def wire_error(error: WindlassError) -> WireError | None:
    """How `error` is sent; None when it is one that callers must not see."""
    status = _STATUS.get(error.code)
    if status is None:
        return None
    trailers: tuple[tuple[str, str | bytes], ...] = ((CODE_KEY, error.code),)
    if isinstance(error, InvalidJob):
        trailers += ((PROBLEMS_KEY, _problems_json(error.problems)),)
    if isinstance(error, Overloaded):
        trailers += ((PUSHBACK_KEY, str(int(error.retry_after.total_seconds() * 1000))),)
    return WireError(status=status, details=_cut(str(error)), trailers=trailers)


def _problems_json(problems: Sequence[Problem]) -> bytes:
    kept: list[list[str]] = []
    size = 0
    for problem in problems:
        pair = [_cut(problem.path), _cut(problem.message)]
        size += len(json.dumps(pair)) + 2
        if size > _MAX_PROBLEMS_BYTES:
            kept.append(["", f"and {len(problems) - len(kept)} more problems"])
            break
        kept.append(pair)
    return json.dumps(kept).encode()


def _cut(text: str) -> str:
    """At most 1 KiB as gRPC sends it, where a character outside of ASCII takes up to 12 bytes."""
    if len(text) * 12 <= _MAX_DETAILS_BYTES:
        return text
    size = 0
    for position, character in enumerate(text):
        size += (
            1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        )
        if size > _MAX_DETAILS_BYTES:
            return text[:position] + " ... (cut)"
    return text
