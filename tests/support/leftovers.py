"""What a system under test has left on this machine: processes, groups, mounts, files. Found from outside."""

import os
from collections.abc import Iterable
from pathlib import Path

import psutil

from windlass_agent.runner.cgroups import read_trees

MARK = "WINDLASS_TEST_WORLD"
"""In the environment of every process that a world starts itself."""


def processes(directory: Path, *, mark: str) -> list[psutil.Process]:
    """Those that have the mark, name the directory, stand in it, or descend from such; not us."""
    ours = {os.getpid(), os.getppid()}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid not in ours and _belongs(process, directory, mark):
            found[process.pid] = process
            for child in _descendants(process):
                found.setdefault(child.pid, child)
    return [process for process in found.values() if _lives(process)]


def _belongs(process: psutil.Process, directory: Path, mark: str) -> bool:
    text = str(directory)
    try:
        if any(text in argument for argument in process.cmdline()):
            return True
        if Path(process.cwd()).is_relative_to(directory):
            return True
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    """A zombie of ours waits for us only; it is no process any more."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def groups(state_ids: Iterable[str]) -> list[Path]:
    """The nodes' cgroups, in every tree of this machine."""
    trees = read_trees(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    bases = {path for path in (trees.unified, *trees.v1.values()) if path}
    return [group for base in bases for one in state_ids for group in base.glob(f"windlass-{one}*")]


def mounts(directory: Path) -> list[str]:
    """Mount points below the directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split(" ")[4] for line in lines]
    return [point for point in points if Path(point).is_relative_to(directory) and Path(point) != directory]


def descriptors(directory: Path) -> list[str]:
    """What this process still has open below the directory."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed the others
            continue
        if target.startswith(f"{directory}/"):
            found.append(target)
    return found


def drafts(directory: Path) -> list[str]:
    """Files that somebody wrote beside the real one and never renamed."""
    endings = (".new", ".tmp", ".part", "-journal")
    return [str(path) for path in directory.rglob("*") if path.name.endswith(endings) and path.is_file()]


def holding(directory: Path, secrets: Iterable[bytes], *, allowed: Iterable[str]) -> list[str]:
    """Files below the directory with one of the secrets in them, other than those named."""
    names, wanted = set(allowed), [secret for secret in secrets if secret]
    found = []
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in names:
            content = path.read_bytes()
            found += [str(path) for secret in wanted if secret in content]
    return found
