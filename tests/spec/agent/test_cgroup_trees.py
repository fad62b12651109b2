"""Where this machine keeps our groups, told from its own texts, and what it offers, told in words."""

from pathlib import Path

from windlass_agent.runner.cgroups import CgroupTrees, Containment, make_containment, read_trees

HYBRID = """\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_a_hybrid_machine_has_each_limit_in_a_tree_of_its_own() -> None:
    trees = read_trees(HYBRID, "9:name=systemd:/\n8:pids:/\n4:memory:/jobs/mine\n0::/here\n")
    assert trees == CgroupTrees(
        unified=Path("/sys/fs/cgroup/unified/here"),
        v1={"memory": Path("/sys/fs/cgroup/memory/jobs/mine"), "pids": Path("/sys/fs/cgroup/pids")},
    )


def test_a_unified_machine_has_one_tree() -> None:
    trees = read_trees(UNIFIED, "0::/system.slice/windlass-agent.service\n")
    assert trees.unified == Path("/sys/fs/cgroup/system.slice/windlass-agent.service")
    assert trees.v1 == {}


def test_in_a_container_paths_are_told_from_the_hosts_root() -> None:
    mount = "30 24 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    assert read_trees(mount, "0::/docker/abc/inner\n").unified == Path("/sys/fs/cgroup/inner")
    assert read_trees(mount, "0::/\n").unified == Path("/sys/fs/cgroup")


def test_a_machine_without_rights_says_what_it_cannot_promise(tmp_path: Path) -> None:
    containment = make_containment(CgroupTrees(unified=tmp_path / "missing", v1={}), "owner")
    why = f"{tmp_path}/missing is not ours: No such file or directory"
    assert containment.describe() == f"weak: process groups and adopted orphans only ({why})"
    assert containment.slot_groups(0).paths() == ()
    assert containment.is_empty(0)
    containment.kill_group(0)
    containment.remove(0)


def test_no_tree_at_all_is_told() -> None:
    lacks = make_containment(CgroupTrees(unified=None, v1={}), "owner").describe()
    assert lacks == "weak: process groups and adopted orphans only (no cgroup tree is mounted)"


def test_what_a_machine_offers_is_told_in_words() -> None:
    unified, memory, pids = Path("/u"), Path("/m"), Path("/p")
    assert Containment(unified=unified, memory=unified, pids=unified).describe() == (
        "cgroup v2, memory and pids limits"
    )
    assert Containment(unified=unified, memory=memory, pids=pids).describe() == (
        "cgroup v2, v1 memory and pids limits"
    )
    assert Containment(unified=None, memory=memory, pids=pids).describe() == (
        "cgroup v1, memory and pids limits"
    )
    assert Containment(unified=unified, memory=None, pids=None, lacks="the reason").describe() == (
        "cgroup v2, no limits (the reason)"
    )


def test_limits_of_the_unified_tree_are_handed_down_to_the_slots(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory pids\n")
    (tmp_path / "windlass-owner").mkdir()
    (tmp_path / "windlass-owner" / "cgroup.subtree_control").write_text("memory pids\n")
    containment = make_containment(CgroupTrees(unified=tmp_path, v1={}), "owner")
    assert containment.slot_groups(3).for_keeper() == dict.fromkeys(
        ("procs", "memory", "pids", "cpu"), f"{tmp_path}/windlass-owner/slot-3"
    )


def test_an_agent_in_a_group_of_its_own_makes_its_slots_beside_it(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "cgroup.controllers").write_text("\n")
    containment = make_containment(CgroupTrees(unified=tmp_path / "agent", v1={}), "owner")
    assert containment.slot_groups(0).procs == tmp_path / "windlass-owner" / "slot-0"


def test_groups_of_slots_that_the_node_no_longer_has_are_found(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("\n")
    containment = make_containment(CgroupTrees(unified=tmp_path, v1={}), "owner")
    for number in (0, 1, 5):
        containment.slot_groups(number)
    assert containment.orphaned_slots(1) == (1, 5)


def test_empty_groups_of_an_agent_that_was_killed_are_removed(tmp_path: Path) -> None:
    containment = Containment(unified=None, memory=tmp_path / "windlass-a", pids=tmp_path / "windlass-a")
    for number in (0, 7):
        (tmp_path / "windlass-a" / f"slot-{number}").mkdir(parents=True)
    containment.remove_empty()
    assert list(tmp_path.iterdir()) == []


def test_groups_of_other_agents_are_told_by_their_owner(tmp_path: Path) -> None:
    for name in ("windlass-a", "windlass-b", "system.slice"):
        (tmp_path / name).mkdir()
    containment = Containment(unified=None, memory=None, pids=tmp_path / "windlass-a")
    assert [one.owner for one in containment.siblings()] == ["b"]
    assert containment.owner == "a"


def test_the_agents_own_group_is_protected_where_it_has_one(tmp_path: Path) -> None:
    containment = Containment(unified=tmp_path / "windlass-a", memory=None, pids=None)
    containment.protect_agent()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "cpu.weight").write_text("100")
    (tmp_path / "cgroup.subtree_control").touch()
    containment.protect_agent()
    assert (tmp_path / "agent" / "cpu.weight").read_text() == "1000"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert not (tmp_path / "agent" / "memory.low").exists()
