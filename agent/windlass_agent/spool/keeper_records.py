"""What a keeper's bare facts mean: a wait status or an errno becomes a result with its kind and reason.

Pure. The keeper writes facts down and stays small; whatever is judged about them is judged here.
"""

import errno
import os
import signal

from windlass_agent.core.run_plan import ExitRecord, StartRecord
from windlass_agent.spool.durable import JsonRecord
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

NOT_FOUND = 127
"""Exit code of a command that is not there, as shells have it."""
CANNOT_RUN = 126
"""Exit code of one that is there and cannot be run."""
_SCARCE = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


def ref_to_json(ref: AttemptRef) -> list[int]:
    return [ref.task_key, ref.index, ref.attempt, ref.fence]


def ref_from_json(columns: list[int]) -> AttemptRef:
    task_key, index, attempt, fence = columns
    return AttemptRef(task_key=TaskKey(task_key), index=index, attempt=attempt, fence=Fence(fence))


def read_start(record: JsonRecord, ref: AttemptRef) -> StartRecord:
    return StartRecord(ref=ref, pid=record["pid"], start_ticks=record["ticks"])


def read_exit(record: JsonRecord, ref: AttemptRef) -> ExitRecord:
    code, number, kind, reason = _judge(record)
    left = record.get("left", 0)
    if left:
        reason = "; ".join(part for part in (reason, _left_behind(left)) if part)
    ran_for_us, user_cpu_us, system_cpu_us = record.get("us", (0, 0, 0))
    return ExitRecord(
        ref=ref,
        code=code,
        signal=number,
        kind=kind,
        reason=reason,
        ran_for_us=ran_for_us,
        user_cpu_us=user_cpu_us,
        system_cpu_us=system_cpu_us,
        peak_memory_bytes=record.get("peak", 0),
        stdout_end=record.get("out", 0),
        stderr_end=record.get("err", 0),
        started="status" in record,
        stopped=record.get("cause") == "stop",
        leftover_processes=left,
        disconnected=record.get("cause") == "disconnect",
    )


_DISCONNECTED = "the coordinator was not heard for longer than run_for"
_Judgement = tuple[int | None, int | None, FailureKind | None, str]
"""Code, signal, kind and reason."""


def _judge(record: JsonRecord) -> _Judgement:
    if "failed" in record:
        return _judge_failed_start(record["failed"])
    if "status" not in record:
        return None, None, None, _why_not_started(record.get("cause"))
    result = os.waitstatus_to_exitcode(record["status"])
    code, number = (result, None) if result >= 0 else (None, -result)
    how = f"exit code {code}" if number is None else f"signal {_signal_name(number)}"
    if record.get("cause") == "timeout":
        return code, number, FailureKind.TIMEOUT, f"ran longer than {record['timeout_s']:g} s; {how}"
    if record.get("cause") == "disconnect":
        return code, number, FailureKind.INFRA_NODE_LOST, f"{_DISCONNECTED}; {how}"
    if code == 0:
        return code, number, None, "stopped" if record.get("cause") == "stop" else ""
    kind = FailureKind.USER_SIGNAL if code is None else FailureKind.USER_EXIT
    if record.get("cause") == "stop":
        return code, number, kind, f"stopped; {how}"
    if record.get("oom"):
        return code, number, FailureKind.OOM, f"{_memory_limit(record)}; {how}"
    return code, number, kind, how


def _why_not_started(cause: str | None) -> str:
    return f"{_DISCONNECTED}; not started" if cause == "disconnect" else "stopped before it was started"


def _left_behind(processes: int) -> str:
    return (
        f"{processes} processes that it left were ended"
        if processes > 1
        else "a process that it left was ended"
    )


def _memory_limit(record: JsonRecord) -> str:
    limit = record.get("memory_bytes", 0)
    return f"needed more than its {limit} bytes of memory" if limit else "the machine ran out of memory"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _judge_failed_start(failed: JsonRecord) -> _Judgement:
    program, number = failed["program"], failed["errno"]
    if failed["at"] == "isolation":
        return CANNOT_RUN, None, FailureKind.INFRA_PREPARE, program
    if failed["at"] != "command" or number in _SCARCE:
        why = os.strerror(number) if number else "not possible"
        return CANNOT_RUN, None, FailureKind.INFRA_PREPARE, f"{program}: {why}"
    code = CANNOT_RUN
    if not program:
        return code, None, FailureKind.USER_CONFIG, "the command is empty"
    if number in (errno.ENOENT, errno.ENOTDIR) and not failed["exists"]:
        code, why = NOT_FOUND, "command not found"
    else:
        why = _why_not_run(failed)
    return code, None, FailureKind.USER_CONFIG, f"{program}: {why}"


def _why_not_run(failed: JsonRecord) -> str:
    match failed["errno"]:
        case None:
            return "arguments or environment hold a character that no program can be given"
        case errno.ENOENT | errno.ENOTDIR:
            return f"bad interpreter: {failed['interpreter'] or 'its loader'} is not there"
        case errno.EACCES | errno.EPERM:
            return "not executable"
        case errno.ENOEXEC if failed["empty"]:
            return "is empty"
        case errno.ENOEXEC:
            return "neither a program for this machine nor a script with a '#!' line"
        case errno.E2BIG:
            return "arguments and environment are too long"
        case number:
            return os.strerror(number)
