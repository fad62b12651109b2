"""Where object-store directories lie on the node."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from windlass_agent.core.mount_plan import (
    Bind,
    MountPlan,
    MountRefused,
    plan_mounts,
    with_node_mounts,
    wrap_in_namespace,
)
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, InputMapping, OutputMapping, TaskSpec

OWN = Path("/state")
WORK, MOUNTS = OWN / "a/work", OWN / "a/mounts"


def a_plan(
    inputs: tuple[tuple[str, str], ...] = (),
    outputs: tuple[tuple[str, str], ...] = (),
    *,
    may_bind: bool = True,
) -> MountPlan:
    spec = TaskSpec(
        name=TaskName("t"),
        command=Argv(args=("true",)),
        inputs=tuple(InputMapping(source=source, destination=path) for source, path in inputs),
        outputs=tuple(OutputMapping(source=path, destination=target) for path, target in outputs),
    )
    return plan_mounts(spec, work=WORK, mounts=MOUNTS, own=OWN, may_bind=may_bind)


def test_a_relative_path_lies_in_the_work_directory() -> None:
    plan = a_plan(inputs=(("oss://b/in/", "data/in"),), may_bind=False)
    assert [transfer.directory for transfer in plan.inputs] == [WORK / "data/in"]
    assert plan.binds == ()


def test_an_absolute_path_is_a_directory_of_the_attempt_bound_there() -> None:
    plan = a_plan(outputs=(("/home/outputs", "oss://b/out/"),))
    assert plan.outputs[0].directory == MOUNTS / "0"
    assert plan.binds == (Bind(directory=MOUNTS / "0", target=PurePosixPath("/home/outputs")),)


def test_mappings_of_one_path_share_its_directory() -> None:
    plan = a_plan(inputs=(("oss://b/a/", "/data"), ("oss://b/b/", "/data")))
    assert [transfer.directory for transfer in plan.inputs] == [MOUNTS / "0", MOUNTS / "0"]
    assert len(plan.binds) == 1


def test_outer_directories_are_bound_before_those_inside_them() -> None:
    plan = a_plan(inputs=(("oss://b/a/", "/data/deep/er"), ("oss://b/b/", "/data")))
    assert [str(bind.target) for bind in plan.binds] == ["/data", "/data/deep/er"]


def test_without_root_an_absolute_path_is_refused_with_what_to_do() -> None:
    with pytest.raises(MountRefused, match="/data needs an agent that runs as root; use a path relative"):
        a_plan(inputs=(("oss://b/a/", "/data"),), may_bind=False)


@pytest.mark.parametrize("path", ["/", "/usr", "/etc/", "//proc"])
def test_directories_of_the_system_are_not_covered(path: str) -> None:
    with pytest.raises(MountRefused, match="part of the system"):
        a_plan(inputs=(("oss://b/a/", path),))


@pytest.mark.parametrize("path", ["../up", "a/../../b", "/data/../etc"])
def test_a_path_does_not_climb(path: str) -> None:
    with pytest.raises(MountRefused, match=r"must not contain '\.\.'"):
        a_plan(inputs=(("oss://b/a/", path),))


def test_a_source_that_is_no_url_is_refused() -> None:
    with pytest.raises(MountRefused, match="must be the URL of a directory"):
        a_plan(inputs=(("/local/path", "data"),))


def test_a_command_without_binds_is_not_wrapped() -> None:
    assert wrap_in_namespace(["a", "b"], [], unshare="/u", mount="/m", mkdir="/k") == ("a", "b")


@pytest.mark.parametrize("path", ["/state", "/state/attempts/x", "/"])
def test_the_agents_own_directory_is_no_place_for_data(path: str) -> None:
    with pytest.raises(MountRefused, match=r"where the agent keeps its own|part of the system"):
        a_plan(inputs=(("oss://b/in/", path),))


def test_what_the_node_mounts_is_for_tasks_without_inputs() -> None:
    own = (InputMapping(source="oss://b/own/", destination="own"),)
    of_the_node = (InputMapping(source="nfs://nas:/shared", destination="shared"),)
    plain = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)))
    assert with_node_mounts(plain, of_the_node).inputs == of_the_node
    assert with_node_mounts(replace(plain, inputs=own), of_the_node).inputs == own
