"""The environment variables of a command."""

from dataclasses import replace

from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.environment import (
    NodeVariables,
    attempt_environment,
    environment_inside,
    task_environment,
)
from windlass_proto.model.ids import AttemptRef, ClusterName, Fence, JobId, TaskKey, TaskName

NODE = NodeVariables(
    node_id="node-1",
    node_name="blue",
    path="/usr/bin:/bin",
    home="/root",
    user="root",
    lang="C.UTF-8",
    tmpdir="/tmp",
    region="cn-qingdao",
    oss_host="oss-cn-qingdao-internal.aliyuncs.com",
    worker_id="wkr-1",
)
BATCH = AssignmentBatch(
    task_key=TaskKey(7),
    job_id=JobId("job-1"),
    task_name=TaskName("count"),
    instance_count=3,
    spec=b"{}",
    cluster=ClusterName("default"),
    index=(2,),
    attempt=(4,),
    fence=(9,),
)
REF = AttemptRef(task_key=TaskKey(7), index=2, attempt=4, fence=Fence(9))


def environment(**user_env: str) -> dict[str, str]:
    return attempt_environment(task_environment(NODE, BATCH, user_env), user_env, REF)


def subset(env: dict[str, str], *prefixes: str) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(prefixes)}


def test_our_own_family() -> None:
    assert subset(environment(), "WINDLASS_") == {
        "WINDLASS_JOB_ID": "job-1",
        "WINDLASS_TASK_NAME": "count",
        "WINDLASS_INDEX": "2",
        "WINDLASS_INSTANCE_COUNT": "3",
        "WINDLASS_ATTEMPT": "4",
        "WINDLASS_FENCE": "9",
        "WINDLASS_CLUSTER": "default",
        "WINDLASS_NODE_ID": "node-1",
        "WINDLASS_NODE_NAME": "blue",
    }


def test_the_family_of_alibaba_with_and_without_dag() -> None:
    assert subset(environment(), "BATCH_COMPUTE_") == {
        "BATCH_COMPUTE_DAG_JOB_ID": "job-1",
        "BATCH_COMPUTE_JOB_ID": "job-1",
        "BATCH_COMPUTE_DAG_TASK_ID": "count",
        "BATCH_COMPUTE_TASK_ID": "count",
        "BATCH_COMPUTE_DAG_INSTANCE_ID": "2",
        "BATCH_COMPUTE_INSTANCE_ID": "2",
        "BATCH_COMPUTE_OSS_HOST": "oss-cn-qingdao-internal.aliyuncs.com",
        "BATCH_COMPUTE_REGION": "cn-qingdao",
        "BATCH_COMPUTE_CLUSTER_ID": "default",
        "BATCH_COMPUTE_WORKER_ID": "wkr-1",
    }


def test_the_family_of_tencent() -> None:
    assert subset(environment(), "BATCH_JOB", "BATCH_TASK") == {
        "BATCH_JOB_ID": "job-1",
        "BATCH_TASK_NAME": "count",
        "BATCH_TASK_INSTANCE_INDEX": "2",
        "BATCH_TASK_INSTANCE_NUM": "3",
    }


def test_what_every_program_expects() -> None:
    env = environment()
    assert (env["PATH"], env["HOME"], env["USER"]) == ("/usr/bin:/bin", "/root", "root")
    assert (env["LANG"], env["TMPDIR"]) == ("C.UTF-8", "/tmp")


def test_the_users_variables_win() -> None:
    env = environment(PATH="/opt/bin", BATCH_COMPUTE_DAG_INSTANCE_ID="mine", DATA="x")
    assert (env["PATH"], env["BATCH_COMPUTE_DAG_INSTANCE_ID"], env["DATA"]) == ("/opt/bin", "mine", "x")


def test_the_user_cannot_pretend_to_be_us() -> None:
    env = environment(WINDLASS_INDEX="77", WINDLASS_NEW="x")
    assert env["WINDLASS_INDEX"] == "2"
    assert "WINDLASS_NEW" not in env


def gpu_variables(gives_gpus: bool, gpus: tuple[str, ...] = (), **user_env: str) -> dict[str, str]:
    node = replace(NODE, gives_gpus=gives_gpus)
    env = attempt_environment(task_environment(node, BATCH, user_env), user_env, REF, gpus)
    return subset(env, "CUDA_", "NVIDIA_", "WINDLASS_GPUS")


def test_a_command_sees_the_gpus_that_it_was_given() -> None:
    assert gpu_variables(True, ("1", "3")) == {
        "CUDA_VISIBLE_DEVICES": "1,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": "1,3",
        "WINDLASS_GPUS": "1,3",
    }


def test_a_command_that_was_given_no_gpu_sees_none_whatever_its_user_says() -> None:
    assert gpu_variables(True, CUDA_VISIBLE_DEVICES="0", NVIDIA_VISIBLE_DEVICES="all") == {
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": "",
        "WINDLASS_GPUS": "",
    }


def test_a_node_that_gives_no_gpus_hides_none() -> None:
    assert gpu_variables(False) == {}
    assert gpu_variables(False, CUDA_VISIBLE_DEVICES="0") == {"CUDA_VISIBLE_DEVICES": "0"}


def test_in_a_container_gpus_are_numbered_from_0_and_there_is_no_other() -> None:
    inside = environment_inside({"WINDLASS_GPUS": "3,5", "CUDA_VISIBLE_DEVICES": "3,5"}, {})
    assert (inside["CUDA_VISIBLE_DEVICES"], inside["WINDLASS_GPUS"]) == ("0,1", "3,5")
    without = {"WINDLASS_GPUS": "", "CUDA_VISIBLE_DEVICES": ""}
    assert environment_inside(without, {})["CUDA_VISIBLE_DEVICES"] == ""
