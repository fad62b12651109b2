"""Whether GPUs come to commands on a machine that has some; for people, as no machine of the tests has one.

    PYTHONPATH=proto:agent:DIRECTORY python3 -m tests.hardware.gpu_probe

Needs the checkout, Python, and in DIRECTORY the one file `pynvml.py` of nvidia-ml-py; nothing of CUDA but the
driver, which is asked in processes with the environment that commands get. Exit code 0 = all is as it should
be, 1 = something is not, 2 = it could not be tried here.
"""

import ctypes
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence

from windlass_agent.core.slots import HandOverLimits, SlotBook
from windlass_agent.node.gpus import find_gpus
from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.environment import NodeVariables, attempt_environment, task_environment
from windlass_proto.model.ids import AttemptRef, ClusterName, Fence, JobId, TaskKey, TaskName
from windlass_proto.model.resources import NodeCapacity, Resources

_NOT_TRIED = 2
_NO_DEVICE = 100
"""What CUDA says when it may see none."""
_AS_A_COMMAND = "--as-a-command"


def main() -> int:
    if sys.argv[1:] == [_AS_A_COMMAND]:
        print(json.dumps(list(_devices())))
        return 0
    gpus = find_gpus()
    print(f"NVML: {', '.join(gpus.names) or 'no GPU'} {gpus.problem}")
    if not gpus.names:
        print("not tried: there is no GPU here, or no pynvml.py on PYTHONPATH")
        return _NOT_TRIED
    is_right = True
    for text, holds in _checks(gpus.names):
        print(f"{'right' if holds else 'WRONG'}: {text}")
        is_right = is_right and holds
    return 0 if is_right else 1


def _checks(names: Sequence[str]) -> Iterator[tuple[str, bool]]:
    capacity = NodeCapacity(cpu=1, memory_bytes=0, slots=len(names) + 1, gpus=len(names))
    book = SlotBook(capacity, HandOverLimits(), gpus=names)
    seen_by_all: list[str] = []
    for number in range(len(names)):
        _place(book, number)
        given = book.gpus_of(_ref(number))
        seen = _seen_by_a_command(given)
        seen_by_all += seen
        yield f"the command with {', '.join(given)} sees {seen}", seen == [_uuid_of(name) for name in given]
    yield "each sees another one", len(set(seen_by_all)) == len(names)
    yield "one more command has to wait for its GPU", _place(book, len(names)) is None
    seen = _seen_by_a_command(())
    yield f"a command that asked for none sees {seen}", seen == []


def _place(book: SlotBook, number: int) -> int | None:
    return book.place(_ref(number), Resources(gpus=1), expected_s=None, exclusive=False, now_s=0)


def _ref(number: int) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(1), index=number, attempt=1, fence=Fence(1))


def _seen_by_a_command(gpus: Sequence[str]) -> list[str]:
    texts = dict.fromkeys(
        ("node_id", "node_name", "home", "user", "lang", "tmpdir", "region", "oss_host", "worker_id"), ""
    )
    batch = AssignmentBatch(
        task_key=TaskKey(1),
        job_id=JobId("job"),
        task_name=TaskName("task"),
        instance_count=1,
        spec=b"{}",
        cluster=ClusterName("default"),
        index=(0,),
        attempt=(1,),
        fence=(1,),
    )
    node = NodeVariables(**texts, path=os.environ["PATH"], gives_gpus=True)
    env = attempt_environment(task_environment(node, batch, {}), {}, _ref(0), gpus)
    ours = {name: value for name, value in os.environ.items() if name.startswith(("PYTHON", "LD_", "FAKE_"))}
    command = [sys.executable, "-m", "tests.hardware.gpu_probe", _AS_A_COMMAND]
    return list(json.loads(subprocess.check_output(command, env=env | ours)))


def _devices() -> Iterator[str]:
    """UUIDs, as CUDA numbers the devices for this process."""
    cuda = ctypes.CDLL("libcuda.so.1")
    code = cuda.cuInit(0)
    if code == _NO_DEVICE:
        return
    count = ctypes.c_int()
    _check(code or cuda.cuDeviceGetCount(ctypes.byref(count)))
    for number in range(count.value):
        device, raw = ctypes.c_int(), ctypes.create_string_buffer(16)
        _check(cuda.cuDeviceGet(ctypes.byref(device), number))
        _check(cuda.cuDeviceGetUuid_v2(raw, device))
        yield str(uuid.UUID(bytes=raw.raw))


def _check(code: int) -> None:
    if code:
        raise OSError(f"CUDA answers {code}")


def _uuid_of(name: str) -> str:
    """Of a GPU by NVML's index, or a part of one by its name."""
    import pynvml

    if not name.isdigit():
        return name.partition("-")[2]
    pynvml.nvmlInit()
    return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(int(name)))).partition("-")[2]


if __name__ == "__main__":
    sys.exit(main())
