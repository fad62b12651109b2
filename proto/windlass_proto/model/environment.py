"""The environment variables of a command.

Three families name the same few things: ours (WINDLASS_*), Alibaba's (BATCH_COMPUTE_*, with and without
_DAG_: its documents use both) and Tencent's (BATCH_*), so that scripts written for those services run
unchanged. The user's own variables win over all but WINDLASS_* and those that say which GPUs are whose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.ids import AttemptRef

RESERVED_PREFIX = "WINDLASS_"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of commands, unless the node or the task says otherwise."""
CONTAINER_WORK_DIR = "/batchcompute/workdir"
"""Where the services had it whose jobs run here."""

_IN_CONTAINER = {
    "USER": "root",
    "LOGNAME": "root",
    "HOME": "/root",
    "PATH": "/sbin:/usr/sbin:/bin:/usr/bin",
    "PWD": CONTAINER_WORK_DIR,
    "TMPDIR": "/tmp",
}
"""As those services had it too."""
_INDEX_NAMES = ("BATCH_COMPUTE_DAG_INSTANCE_ID", "BATCH_COMPUTE_INSTANCE_ID", "BATCH_TASK_INSTANCE_INDEX")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVariables:
    """What a command is told about the machine."""

    node_id: str
    node_name: str
    path: str
    home: str
    user: str
    lang: str
    tmpdir: str
    region: str
    oss_host: str
    worker_id: str
    gives_gpus: bool = False
    """Whether commands get GPUs from it: then they see only those that they were given."""


def task_environment(
    node: NodeVariables, batch: AssignmentBatch, user_env: Mapping[str, str]
) -> dict[str, str]:
    """What all attempts of a task have in common."""
    return {
        "PATH": node.path,
        "HOME": node.home,
        "USER": node.user,
        "LOGNAME": node.user,
        "LANG": node.lang,
        "TMPDIR": node.tmpdir,
        "BATCH_COMPUTE_DAG_JOB_ID": batch.job_id,
        "BATCH_COMPUTE_JOB_ID": batch.job_id,
        "BATCH_JOB_ID": batch.job_id,
        "BATCH_COMPUTE_DAG_TASK_ID": batch.task_name,
        "BATCH_COMPUTE_TASK_ID": batch.task_name,
        "BATCH_TASK_NAME": batch.task_name,
        "BATCH_TASK_INSTANCE_NUM": str(batch.instance_count),
        "BATCH_COMPUTE_OSS_HOST": node.oss_host,
        "BATCH_COMPUTE_REGION": node.region,
        "BATCH_COMPUTE_CLUSTER_ID": batch.cluster,
        "BATCH_COMPUTE_WORKER_ID": node.worker_id,
        **{name: value for name, value in user_env.items() if not name.startswith(RESERVED_PREFIX)},
        "WINDLASS_JOB_ID": batch.job_id,
        "WINDLASS_TASK_NAME": batch.task_name,
        "WINDLASS_INSTANCE_COUNT": str(batch.instance_count),
        "WINDLASS_CLUSTER": batch.cluster,
        "WINDLASS_NODE_ID": node.node_id,
        "WINDLASS_NODE_NAME": node.node_name,
        **(_gpu_variables(()) if node.gives_gpus else {}),
    }


def attempt_environment(
    shared: Mapping[str, str], user_env: Mapping[str, str], ref: AttemptRef, gpus: Sequence[str] = ()
) -> dict[str, str]:
    """`shared` (from `task_environment`) and what differs from attempt to attempt."""
    index = str(ref.index)
    env = {
        **shared,
        "WINDLASS_INDEX": index,
        "WINDLASS_ATTEMPT": str(ref.attempt),
        "WINDLASS_FENCE": str(ref.fence),
        **(_gpu_variables(gpus) if gpus else {}),
    }
    for name in _INDEX_NAMES:
        if name not in user_env:
            env[name] = index
    return env


def environment_inside(env: Mapping[str, str], user_env: Mapping[str, str]) -> dict[str, str]:
    """`env` of an attempt on the node itself, as its container has it; what the user says stays. Its GPUs are
    numbered anew, as there are no others inside."""
    own = {name: value for name, value in _IN_CONTAINER.items() if name not in user_env}
    if env.get("WINDLASS_GPUS"):
        gpus = env["WINDLASS_GPUS"].split(",")
        own["CUDA_VISIBLE_DEVICES"] = ",".join(str(number) for number in range(len(gpus)))
    return {**env, **own, "WINDLASS_WORK_DIR": CONTAINER_WORK_DIR}


def _gpu_variables(gpus: Sequence[str]) -> dict[str, str]:
    """For CUDA, for the NVIDIA container runtime, and for whoever reads ours."""
    names = ",".join(gpus)
    return {
        "CUDA_VISIBLE_DEVICES": names,
        # Else CUDA counts the fastest first, and its numbers are not those of NVML.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": names,
        "WINDLASS_GPUS": names,
    }
