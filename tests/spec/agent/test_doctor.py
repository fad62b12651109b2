"""What the doctor of a node makes of what the machine offers."""

import os
from pathlib import Path

import pytest

from windlass_agent.doctor import holder_of, judge_gpus, judge_trees
from windlass_agent.node.gpus import NodeGpus
from windlass_agent.runner.cgroups import CgroupTrees
from windlass_proto.model.diagnosis import Health


@pytest.mark.parametrize(
    ("unified", "v1", "kind"),
    [(True, (), "v2"), (True, ("memory",), "hybrid"), (False, ("memory", "pids"), "v1")],
)
def test_the_kind_of_containment_is_told(
    tmp_path: Path, unified: bool, v1: tuple[str, ...], kind: str
) -> None:
    trees = CgroupTrees(unified=tmp_path if unified else None, v1=dict.fromkeys(v1, tmp_path))
    found = judge_trees(trees)
    assert (found.health, found.says) == (Health.GOOD, f"cgroup {kind}")


def test_without_groups_the_promise_is_weaker_and_said_so() -> None:
    found = judge_trees(CgroupTrees(unified=None, v1={}))
    assert found.health is Health.NOTE
    assert "a weaker promise" in found.says
    assert "Delegate=yes" in found.do


def test_groups_that_are_not_ours_are_a_weaker_promise_too(tmp_path: Path) -> None:
    found = judge_trees(CgroupTrees(unified=tmp_path / "not-there", v1={}))
    assert "not ours to use, a weaker promise" in found.says


def test_the_holder_of_a_lock_is_told_by_the_kernels_list(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    about = lock.stat()
    where = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    waits = f"1: -> FLOCK  ADVISORY  WRITE 11 {where} 0 EOF\n"
    other = f"2: POSIX  ADVISORY  WRITE 12 {where} 0 EOF\n"
    holds = f"3: FLOCK  ADVISORY  WRITE 13 {where} 0 EOF\n"
    assert holder_of(lock, waits + other) is None
    assert holder_of(lock, waits + other + holds) == 13
    assert holder_of(tmp_path / "missing", holds) is None


def test_the_gpus_are_told_and_why_they_cannot_be() -> None:
    found = judge_gpus(NodeGpus(names=("0", "MIG-1b")))
    assert (found.health, found.says) == (Health.GOOD, "0, MIG-1b")
    assert judge_gpus(NodeGpus()).says == "none"
    unknown = judge_gpus(NodeGpus(problem="Driver/library version mismatch"))
    assert (unknown.health, "version mismatch" in unknown.says) == (Health.NOTE, True)
