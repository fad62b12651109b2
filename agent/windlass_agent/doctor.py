"""`windlass-agent doctor`: says what is wrong with a node; changes nothing, and may run beside its agent."""

import argparse
import json
import os
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from windlass_agent.containers.base import EngineSetting, EngineUnavailable
from windlass_agent.containers.detection import find_engine
from windlass_agent.core.disk_pressure import DiskFloor
from windlass_agent.core.isolation import parse_user_range
from windlass_agent.isolation.machine import what_is_lacking
from windlass_agent.link.identity import load_identity
from windlass_agent.mounts.fuse_daemon import find_rclone
from windlass_agent.mounts.kernel import why_not_mountable
from windlass_agent.node.gpus import NodeGpus, find_gpus
from windlass_agent.runner.cgroups import CgroupTrees, read_trees
from windlass_agent.settings import DiskSettings, WorkSettings
from windlass_agent.spool.disk_space import disk_space
from windlass_agent.spool.intents import IntentJournal
from windlass_agent.spool.slot_dir import SlotDir
from windlass_agent.spool.stray_mounts import mounts_below
from windlass_agent.state_dir import StateDir
from windlass_proto.errors import InvalidRequest
from windlass_proto.model.diagnosis import (
    COULD_NOT_LOOK,
    HEALTHY,
    Finding,
    as_lines,
    exit_code_of,
    good,
    note,
    problem,
    unknown,
)
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.specs import Isolation

NAME = "doctor"
_FEW_DESCRIPTORS = 4096
_FEW_PROCESSES = 1024
_START_THE_AGENT = "start the agent with this --state: it ends and clears what is left over"


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 = healthy, 1 = problems, 2 = could not look."""
    options = _parser().parse_args(arguments)
    state = StateDir(options.state)
    if not state.identity.exists():
        why = (
            "is not there or may not be read"
            if not os.access(state.root, os.R_OK)
            else "holds no agent's state"
        )
        print(f"windlass-agent: {state.root} {why}; was an agent started with it?", file=sys.stderr)
        return COULD_NOT_LOOK
    findings = list(diagnose(state))
    code = exit_code_of(findings)
    if options.json:
        print(json.dumps({"healthy": code == HEALTHY, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        print("\n".join(as_lines(findings)))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"windlass-agent {NAME}",
        description="Says what is wrong with this node, without changing anything.",
    )
    parser.add_argument(
        "--state", metavar="DIR", type=Path, required=True, help="the agent's state directory"
    )
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    return parser


def diagnose(state: StateDir) -> Iterator[Finding]:
    """Everything that can be told from outside the agent."""
    pid = holder_of(state.lock, Path("/proc/locks").read_text())
    if pid is None:
        yield note("agent.process", state.lock, "no agent runs on this directory", do="start it")
    else:
        yield good("agent.process", state.lock, f"an agent runs on it (pid {pid})")
    yield from _identity(state)
    yield _containment(state, pid)
    live, journal = _intents(state)
    yield journal
    yield from _slots(state, is_running=pid is not None)
    if pid is None:
        yield _left_directories(state, live)
        yield _left_mounts(state)
    yield _evidence(state)
    yield _room(state)
    yield _isolation(state)
    yield judge_gpus(find_gpus())
    yield _fuse(Path("/dev/fuse"))
    yield _containers(state)
    yield _inputs(why_not_mountable(find_rclone()))
    yield from _limits()


def holder_of(lock: Path, locks: str) -> int | None:
    """Who holds a file's lock, from the text of /proc/locks: asking for the lock itself could keep an agent
    that starts at this moment from getting it."""
    try:
        about = lock.stat()
    except OSError:
        return None
    device = about.st_dev
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{about.st_ino}"
    for line in locks.splitlines():
        columns = line.split()
        if "FLOCK" in columns and wanted in columns and "->" not in columns:
            return int(columns[4])
    return None


def _identity(state: StateDir) -> Iterator[Finding]:
    try:
        identity = load_identity(state.identity)
    except InvalidRequest as error:
        yield problem("identity", state.identity, str(error), do="give a new --state, and a new join token")
        return
    except OSError as error:
        yield unknown("identity", state.identity, f"it cannot be read: {error.strerror}")
        return
    if identity.node_id:
        yield good("identity", state.identity, f"it is {identity.node_id} of cluster {identity.cluster}")
    else:
        yield note("identity", state.identity, "it has not joined yet", do="give it a join token")
    mode = stat.S_IMODE(state.identity.stat().st_mode)
    if mode & 0o077:
        yield problem(
            "identity.permissions",
            state.identity,
            f"others may read the node's credential (mode {mode:04o})",
            do=f"chmod 0600 {state.identity}",
        )


def _containment(state: StateDir, pid: int | None) -> Finding:
    """Of the running agent when there is one: it may have another group than we."""
    try:
        of = "self" if pid is None else str(pid)
        trees = read_trees(Path("/proc/self/mountinfo").read_text(), Path(f"/proc/{of}/cgroup").read_text())
    except OSError as error:
        return unknown("containment", "/proc", f"the groups cannot be told: {error.strerror}")
    return judge_trees(trees)


def judge_trees(trees: CgroupTrees) -> Finding:
    """What keeps a command's processes together here."""
    bases = [path for path in (trees.unified, *trees.v1.values()) if path is not None]
    kind = "hybrid" if trees.unified and trees.v1 else "v2" if trees.unified else "v1" if trees.v1 else "none"
    weaker = "processes that leave their session may outlive their command, and memory is not limited"
    if not bases:
        return note(
            "containment",
            "cgroups",
            f"{kind}: process groups only, a weaker promise: {weaker}",
            do="mount a cgroup tree, or run the agent by systemd with Delegate=yes",
        )
    if not any(os.access(base, os.W_OK) for base in bases):
        return note(
            "containment",
            bases[0],
            f"{kind}, but not ours to use, a weaker promise: {weaker}",
            do="run the agent as root, or by systemd with Delegate=yes",
        )
    return good("containment", bases[0], f"cgroup {kind}")


def _intents(state: StateDir) -> tuple[frozenset[AttemptRef], Finding]:
    """On a copy: opening the journal writes to it."""
    with tempfile.TemporaryDirectory(prefix="windlass-doctor-") as folder:
        copy = Path(folder) / state.intents.name
        try:
            if state.intents.exists():
                shutil.copyfile(state.intents, copy)
        except OSError as error:
            return frozenset(), unknown("intents", state.intents, f"it cannot be read: {error.strerror}")
        journal = IntentJournal(copy)
        live = frozenset(journal.live)
        journal.close()
    if journal.damaged:
        return live, problem(
            "intents",
            state.intents,
            f"{journal.damaged} damaged lines: what they assigned is not known",
            do="nothing for the jobs: the coordinator gives them out again; look at the disk",
        )
    return live, good("intents", state.intents, f"{len(live)} attempts are assigned")


def _slots(state: StateDir, *, is_running: bool) -> Iterator[Finding]:
    for number in range(state.slots_used()):
        slot = SlotDir(state.slot(number))
        if not slot.path.is_dir():
            continue
        damaged = sum(segment.damaged for segment in slot.read_journal())
        if damaged:
            yield problem(
                "slot.journal",
                slot.path,
                f"{damaged} damaged records",
                do="nothing for the jobs: what they told of is lost and runs again; look at the disk",
            )
        keeper = holder_of(slot.path / "keeper.lock", Path("/proc/locks").read_text())
        if keeper is None:
            yield good("slot", slot.path, "no keeper: it starts with the next command")
        elif is_running:
            yield good("slot", slot.path, f"keeper {keeper}")
        else:
            yield note(
                "slot.orphaned",
                slot.path,
                f"keeper {keeper} goes on without an agent; its command keeps running",
                do="start the agent with this --state: it takes it over",
            )


def _left_directories(state: StateDir, live: frozenset[AttemptRef]) -> Finding:
    left = state.leftovers(live)
    if left:
        return note(
            "attempts.left", state.attempts, f"{len(left)} belong to no assignment", do=_START_THE_AGENT
        )
    return good("attempts.left", state.attempts, "each belongs to an assignment")


def _left_mounts(state: StateDir) -> Finding:
    points = mounts_below(Path("/proc/self/mountinfo").read_text(), state.root)
    if points:
        return note("mounts.left", points[0], f"{len(points)} mounts without an agent", do=_START_THE_AGENT)
    return good("mounts.left", state.root, "none")


def _evidence(state: StateDir) -> Finding:
    kept = sorted((state.root / "evidence").glob("*"))
    if kept:
        return note(
            "evidence",
            kept[-1],
            f"{len(kept)} damaged files were kept",
            do="look at the disk, then remove them",
        )
    return good("evidence", state.root, "nothing was found damaged")


def _room(state: StateDir) -> Finding:
    settings = DiskSettings()
    reserve = DiskFloor(size_bytes=settings.reserve_bytes, inodes=settings.reserve_inodes)
    space = disk_space(state.root)
    shortage = reserve.shortage(space, was_short=False)
    if shortage:
        return problem(
            "disk.room", state.root, f"{shortage}: no work is taken", do="free space; it goes on then"
        )
    return good("disk.room", state.root, f"{space.free_bytes >> 20} MiB are free")


def _isolation(state: StateDir) -> Finding:
    """Tried, with a command that does nothing; whatever the agent's settings ask for."""
    lacks = what_is_lacking(state.root, parse_user_range(WorkSettings().uid_range).last)
    if Isolation.STANDARD in lacks:
        return note(
            "isolation",
            "this machine",
            f"commands have the agent's own rights: {lacks[Isolation.STANDARD]}",
            do="see docs/operate/isolation.md for what is needed",
        )
    if lacks:
        return good("isolation", "this machine", f"standard; no strict: {lacks[Isolation.STRICT]}")
    return good("isolation", "this machine", "standard and strict")


def judge_gpus(found: NodeGpus) -> Finding:
    """What NVML says; the agent's settings may say otherwise, and count."""
    if found.problem:
        mend = "mend the driver, or name the GPUs in the agent's settings; then start the agent again"
        return note("gpus", "NVML", f"it cannot be asked: {found.problem}", do=mend)
    return good("gpus", "NVML", ", ".join(found.names) or "none")


def _fuse(device: Path) -> Finding:
    if device.exists() and os.access(device, os.R_OK | os.W_OK):
        return good("fuse", device, "it can be used")
    return note("fuse", device, "it cannot be used: nothing can be mounted, inputs are copied")


def _containers(state: StateDir) -> Finding:
    """With the usual settings: an agent may have been told of another engine."""
    setting = EngineSetting(engine="auto", socket="", options=())
    try:
        engine = find_engine(setting, state.containers)
    except EngineUnavailable as error:
        return note(
            "containers",
            "docker, podman",
            f"{error}: tasks in containers fail here",
            do="install one, or start it",
        )
    return good("containers", engine.program[0], "it runs tasks in containers")


def _inputs(why_not: str) -> Finding:
    if why_not:
        return note("inputs", "mount", f"they are copied down before a command starts: {why_not}")
    return good("inputs", "mount", "they are mounted")


def _limits() -> Iterator[Finding]:
    for what, kind, few in (
        ("limit.descriptors", resource.RLIMIT_NOFILE, _FEW_DESCRIPTORS),
        ("limit.processes", resource.RLIMIT_NPROC, _FEW_PROCESSES),
    ):
        _, hard = resource.getrlimit(kind)
        if 0 <= hard < few:
            yield problem(
                what, "ulimit", f"at most {hard}", do=f"allow at least {few} (limits.conf, unit file)"
            )
        else:
            yield good(what, "ulimit", "enough" if hard < 0 else f"{hard}")
