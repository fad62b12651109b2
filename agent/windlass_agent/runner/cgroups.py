"""What this machine offers to keep a command's processes together, and the slots' groups in it.

One group per slot in the v2 tree proves that nothing is left and kills what is; memory and pids limits come
from the same group or, on a hybrid machine, from v1 groups of the same name. Without rights there are no
groups: then the keeper's adoption of orphans and the command's session are all there is, and `describe` says
so. The keeper moves itself into its groups once; nothing else writes `cgroup.procs`.
"""

import errno
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from windlass_proto.errors import Unavailable

AGENT_GROUP = "agent"
"""Where the agent goes when its own group must be free of processes (`DelegateSubgroup=` of the unit)."""
_LIMITS = ("memory", "pids", "cpu")
_PROTECTION = {"cpu.weight": "1000", "memory.low": str(256 << 20)}
"""Of the agent's own group: ten times the usual share, and memory that is not taken back for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupTrees:
    """Our own group in each tree that is mounted."""

    unified: Path | None
    v1: Mapping[str, Path]
    """By controller: memory, pids and cpu where they are v1."""


def read_trees(mountinfo: str, own_groups: str) -> CgroupTrees:
    """From the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    own = {}
    for line in own_groups.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    unified = None
    v1 = {}
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        root, mount_point = mount.split(" ")[3:5]
        if kind == "cgroup2" and "" in own:
            unified = _below(mount_point, root, own[""])
        elif kind == "cgroup":
            for controller in set(_LIMITS) & set(options.split(" ")[-1].split(",")) & own.keys():
                v1[controller] = _below(mount_point, root, own[controller])
    return CgroupTrees(unified=unified, v1=v1)


def _below(mount_point: str, root: str, own: str) -> Path:
    """A container may see a tree whose root is its own group, while its path is told from the host's root."""
    inside = os.path.relpath(own, root)
    return Path(mount_point) if inside.startswith("..") else Path(mount_point) / inside


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotGroups:
    """The groups of one slot; None = the machine gives none of that kind."""

    procs: Path | None
    """Tells and ends processes: v2 where there is a v2 tree."""
    memory: Path | None
    pids: Path | None
    cpu: Path | None = None

    def for_keeper(self) -> dict[str, str]:
        found = {"procs": self.procs, "memory": self.memory, "pids": self.pids, "cpu": self.cpu}
        return {name: str(path) for name, path in found.items() if path}

    def paths(self) -> tuple[Path, ...]:
        found = (self.procs, self.memory, self.pids, self.cpu)
        return tuple(dict.fromkeys(path for path in found if path))


class Containment:
    """The node's groups, `<own group>/windlass-<owner>/slot-N` in each tree."""

    def __init__(
        self,
        *,
        unified: Path | None,
        memory: Path | None,
        pids: Path | None,
        cpu: Path | None = None,
        lacks: str = "",
    ) -> None:
        self._unified = unified
        self._memory = memory
        self._pids = pids
        self._cpu = cpu
        self._lacks = lacks

    def describe(self) -> str:
        """In words for people: a node's fact and `doctor` show it."""
        trees = (("memory", self._memory), ("pids", self._pids), ("cpu", self._cpu))
        limits = [name for name, path in trees if path]
        if self._top is None:
            return f"weak: process groups and adopted orphans only ({self._lacks})"
        where = "cgroup v2" if self._unified else "cgroup v1"
        version = "v1 " if limits and self._unified and self._memory != self._unified else ""
        limited = f"{version}{_listed(limits)} limits" if limits else "no limits"
        return f"{where}, {limited}" + (f" ({self._lacks})" if self._lacks else "")

    @property
    def can_limit_memory(self) -> bool:
        return self._memory is not None

    def slot_groups(self, number: int) -> SlotGroups:
        """Made when missing, also where somebody has removed the node's own group. Raises OSError."""
        self._make_tops()
        groups = self._groups(number)
        for path in groups.paths():
            path.mkdir(exist_ok=True)
            for name in ("memory.swap.max", "memory.swappiness"):
                with suppress(OSError):
                    (path / name).write_text("0")
        return groups

    def kill_group(self, number: int) -> None:
        """Ends all in the slot's group, its keeper too. Does not wait: ask `is_empty`."""
        group = self._groups(number).procs
        if group is None or not group.exists():
            return
        if (group / "cgroup.kill").exists():  # v1 refuses what it does not have as if it were forbidden
            (group / "cgroup.kill").write_text("1")
        else:
            self._kill_each(number)

    def kill_others(self, number: int, *, spare: int) -> None:
        """Ends all in the slot's group but its keeper `spare`. Nothing in it can fork meanwhile."""
        group = self._groups(number).procs
        if group is None or not group.exists():
            return
        freezer = group / "cgroup.freeze"
        if freezer.exists():
            freezer.write_text("1")
        try:
            self._kill_each(number, spare=spare)
        finally:
            if freezer.exists():
                freezer.write_text("0")

    def is_empty(self, number: int) -> bool:
        """Also True where there are no groups to ask."""
        group = self._groups(number).procs
        return group is None or not any(True for _ in _processes(group))

    def remove(self, number: int) -> None:
        """The slot's groups, with the last one the node's own. What still holds a process or a slot stays."""
        for path in self._groups(number).paths():
            for group in (path, path.parent):
                with suppress(OSError):
                    group.rmdir()

    def remove_unused(self) -> None:
        """The node's own groups, where no slot has one below: the kernel lets no other go."""
        for path in self._tops:
            with suppress(OSError):
                path.rmdir()

    def remove_empty(self) -> None:
        """Groups that an agent before this one left, as after a kill -9, and in which nothing lives."""
        for number in self.orphaned_slots(0):
            self.remove(number)

    def protect_agent(self) -> None:
        """The agent's own group, where it has one, comes before commands when processor or memory is short.

        Only on v2: elsewhere a process in the parent group weighs as much as all slots together anyway.
        """
        if self._unified is None:
            return
        own = self._unified.parent / AGENT_GROUP
        if not own.exists():
            return
        with suppress(OSError):
            (own.parent / "cgroup.subtree_control").write_text("+cpu")
        for name, value in _PROTECTION.items():
            with suppress(OSError):
                if (own / name).exists():
                    (own / name).write_text(value)

    def siblings(self) -> tuple["Containment", ...]:
        """The groups of other agents, dead or alive, that lie beside our own; see `orphans`."""
        tops = self._tops
        names = {found.name for top in tops for found in top.parent.glob("windlass-*") if found.is_dir()}

        def beside(top: Path | None, name: str) -> Path | None:
            return top.with_name(name) if top and top.with_name(name).exists() else None

        return tuple(
            Containment(
                unified=beside(self._unified, name),
                memory=beside(self._memory, name),
                pids=beside(self._pids, name),
                cpu=beside(self._cpu, name),
            )
            for name in sorted(names - {top.name for top in tops})
        )

    @property
    def owner(self) -> str:
        """As given to `find_containment`; "" where there are no groups."""
        return self._top.name.removeprefix("windlass-") if self._top else ""

    def pids_in(self) -> frozenset[int]:
        """Everything that lives in any slot."""
        if self._top is None or not self._top.exists():
            return frozenset()
        return frozenset(pid for slot in self._top.glob("slot-*") for pid in _processes(slot))

    def orphaned_slots(self, slots: int) -> tuple[int, ...]:
        """Numbers of groups beyond this node's slots, as after a change of its configuration."""
        if self._top is None or not self._top.exists():
            return ()
        names = (path.name.partition("slot-")[2] for path in self._top.iterdir() if path.is_dir())
        return tuple(sorted(int(name) for name in names if name.isdigit() and int(name) >= slots))

    def _make_tops(self) -> None:
        for top in self._tops:
            if not top.exists():
                top.mkdir()
                trees = (("memory", self._memory), ("pids", self._pids), ("cpu", self._cpu))
                for controller, path in trees:
                    if path == top == self._unified:
                        _enable(top, controller)

    @property
    def _tops(self) -> list[Path]:
        found = (self._unified, self._memory, self._pids, self._cpu)
        return list(dict.fromkeys(path for path in found if path))

    @property
    def _top(self) -> Path | None:
        return self._unified or self._pids or self._memory

    def _groups(self, number: int) -> SlotGroups:
        def slot(top: Path | None) -> Path | None:
            return top / f"slot-{number}" if top else None

        return SlotGroups(
            procs=slot(self._top), memory=slot(self._memory), pids=slot(self._pids), cpu=slot(self._cpu)
        )

    def _kill_each(self, number: int, *, spare: int = 0) -> None:
        """Before Linux 5.14, and on v1: nothing may fork while each is killed."""
        groups = self._groups(number)
        if groups.pids:
            (groups.pids / "pids.max").write_text("0")
        for pid in set(_processes(groups.procs) if groups.procs else ()) - {spare}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def find_containment(owner: str) -> Containment:
    """Looks at this machine and makes the node's groups; `owner` keeps agents apart.

    It names the state and the directory that it lies in: an agent on a copy of the state would end what runs.
    """
    try:
        trees = read_trees(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    except OSError as error:
        return Containment(unified=None, memory=None, pids=None, lacks=f"no cgroups here: {error.strerror}")
    return make_containment(trees, owner)


def make_containment(trees: CgroupTrees, owner: str) -> Containment:
    name = f"windlass-{owner}"
    lacks = []
    unified = None
    if trees.unified:
        base = trees.unified.parent if trees.unified.name == AGENT_GROUP else trees.unified
        try:
            unified = _make(base / name)
        except OSError as error:
            lacks.append(f"{base} is not ours: {error.strerror}")
    found: dict[str, Path | None] = dict.fromkeys(_LIMITS)
    for controller in _LIMITS:
        try:
            if controller in trees.v1:
                found[controller] = _make(trees.v1[controller] / name)
            elif unified:
                _enable(unified, controller)
                found[controller] = unified
        except OSError as error:
            lacks.append(f"no {controller} controller: {error.strerror}")
        except Unavailable as error:
            lacks.append(f"no {controller} controller: {error}")
    if not trees.unified and not trees.v1:
        lacks.append("no cgroup tree is mounted")
    return Containment(unified=unified, **found, lacks="; ".join(lacks))


def _listed(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _make(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def _enable(unified: Path, controller: str) -> None:
    """For the slots, through our parent group and our own. Raises OSError or Unavailable."""
    if controller not in (unified.parent / "cgroup.controllers").read_text().split():
        raise Unavailable("the v2 tree has none")
    for group in (unified.parent, unified):
        if controller in (group / "cgroup.subtree_control").read_text().split():
            continue
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            if error.errno != errno.EBUSY or set(_processes(group)) != {os.getpid()}:
                raise
            # A group with limited children must hold no process itself: the agent moves to one of its own.
            (_make(group / AGENT_GROUP) / "cgroup.procs").write_text(str(os.getpid()))
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _processes(group: Path) -> Iterator[int]:
    with suppress(FileNotFoundError):
        yield from (int(line) for line in (group / "cgroup.procs").read_text().split())
