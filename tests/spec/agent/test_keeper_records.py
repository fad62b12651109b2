"""A keeper's bare facts become a result with its kind and reason."""

import errno
import signal
from typing import Any

import pytest

from windlass_agent.spool.keeper_records import read_exit, read_start, ref_from_json, ref_to_json
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

REF = AttemptRef(task_key=TaskKey(3), index=14, attempt=2, fence=Fence((5 << 40) + 9))


def judged(**record: Any) -> tuple[int | None, int | None, FailureKind | None, str]:
    end = read_exit({"is": "exit", "ref": ref_to_json(REF), **record}, REF)
    return end.code, end.signal, end.kind, end.reason


def failed(number: int | None, *, at: str = "command", **facts: Any) -> dict[str, Any]:
    program = {"program": "prog", "exists": False, "empty": False, "interpreter": ""}
    return {"failed": program | {"errno": number, "at": at} | facts}


def test_a_ref_survives_its_columns() -> None:
    assert ref_from_json(ref_to_json(REF)) == REF


def test_an_end_carries_what_was_measured() -> None:
    record = {"status": 0, "us": [5, 6, 7], "peak": 8, "out": 9, "err": 10, "left": 11}
    end = read_exit(record, REF)
    assert (end.ran_for_us, end.user_cpu_us, end.system_cpu_us, end.peak_memory_bytes) == (5, 6, 7, 8)
    assert (end.stdout_end, end.stderr_end, end.leftover_processes) == (9, 10, 11)
    assert (end.started, end.stopped) == (True, False)


def test_a_start_names_its_process() -> None:
    start = read_start({"pid": 77, "ticks": 88}, REF)
    assert (start.ref, start.pid, start.start_ticks) == (REF, 77, 88)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"status": 0}, (0, None, None, "")),
        ({"status": 3 << 8}, (3, None, FailureKind.USER_EXIT, "exit code 3")),
        ({"status": 9}, (None, 9, FailureKind.USER_SIGNAL, "signal SIGKILL")),
        ({"status": signal.SIGRTMIN + 1}, (None, signal.SIGRTMIN + 1, FailureKind.USER_SIGNAL, "signal 35")),
        (
            {"status": 15, "cause": "timeout", "timeout_s": 1.5},
            (None, 15, FailureKind.TIMEOUT, "ran longer than 1.5 s; signal SIGTERM"),
        ),
        (
            {"status": 0, "cause": "timeout", "timeout_s": 60.0},
            (0, None, FailureKind.TIMEOUT, "ran longer than 60 s; exit code 0"),
        ),
        (
            {"status": 9, "oom": True, "memory_bytes": 1024},
            (None, 9, FailureKind.OOM, "needed more than its 1024 bytes of memory; signal SIGKILL"),
        ),
        (
            {"status": 1 << 8, "oom": True},
            (1, None, FailureKind.OOM, "the machine ran out of memory; exit code 1"),
        ),
        ({"status": 0, "oom": True, "memory_bytes": 1024}, (0, None, None, "")),
        ({"status": 15, "cause": "stop"}, (None, 15, FailureKind.USER_SIGNAL, "stopped; signal SIGTERM")),
        ({"status": 0, "cause": "stop"}, (0, None, None, "stopped")),
        ({"cause": "stop"}, (None, None, None, "stopped before it was started")),
    ],
)
def test_how_it_ended_is_told_apart(record: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert judged(**record) == expected


@pytest.mark.parametrize(
    ("record", "code", "kind", "reason"),
    [
        (failed(errno.ENOENT), 127, FailureKind.USER_CONFIG, "prog: command not found"),
        (
            failed(errno.ENOENT, exists=True, interpreter="/no/sh"),
            126,
            FailureKind.USER_CONFIG,
            "prog: bad interpreter: /no/sh is not there",
        ),
        (
            failed(errno.ENOENT, exists=True),
            126,
            FailureKind.USER_CONFIG,
            "prog: bad interpreter: its loader is not there",
        ),
        (failed(errno.EACCES, exists=True), 126, FailureKind.USER_CONFIG, "prog: not executable"),
        (failed(errno.ENOEXEC, exists=True, empty=True), 126, FailureKind.USER_CONFIG, "prog: is empty"),
        (failed(errno.ENOENT, program=""), 126, FailureKind.USER_CONFIG, "the command is empty"),
        (
            failed(errno.EAGAIN, exists=True),
            126,
            FailureKind.INFRA_PREPARE,
            "prog: Resource temporarily unavailable",
        ),
        (
            failed(errno.ENOENT, at="work_dir", program="/work"),
            126,
            FailureKind.INFRA_PREPARE,
            "/work: No such file or directory",
        ),
        (
            failed(errno.EBUSY, at="memory", program="the memory limit"),
            126,
            FailureKind.INFRA_PREPARE,
            "the memory limit: Device or resource busy",
        ),
    ],
)
def test_why_it_could_not_be_started_is_told(
    record: dict[str, Any], code: int, kind: FailureKind, reason: str
) -> None:
    assert judged(**record) == (code, None, kind, reason)
    assert not read_exit(record, REF).started
