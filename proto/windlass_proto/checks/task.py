"""Checks of one task, by itself."""

import re
from collections.abc import Mapping
from datetime import timedelta

from windlass_proto.checks.container import check_container
from windlass_proto.checks.limits import SpecLimits
from windlass_proto.checks.logs import check_logs
from windlass_proto.checks.mappings import (
    check_input_locale,
    check_mappings,
    check_object_directory,
    check_object_url,
)
from windlass_proto.checks.words import Findings, check_between, check_name, check_text, check_together, show
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import Argv, Command, DisconnectPolicy, ShellLine, TaskSpec

ARCHIVE_SUFFIXES = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar", ".zip"),
)
"""Names that packages may have; what they are is told by their content."""
FEWEST_OPEN_FILES = 16
"""Three for input and output, and what loading a program's libraries needs."""
RESERVED_ENV_PREFIX = "WINDLASS_"

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_task(findings: Findings, path: str, task: TaskSpec, *, limits: SpecLimits) -> None:
    """Everything but its name and its place among the others."""
    check_between(findings, f"{path}.instances", task.instances, low=1, high=limits.instances)
    check_between(findings, f"{path}.retries", task.max_retries, low=0, high=limits.retries)
    check_name(findings, f"{path}.cluster", task.cluster, longest=limits.name_length)
    _check_command(findings, path, task.command, limits=limits)
    for name in ("timeout", "package_timeout", "mount_timeout", "upload_timeout"):
        timeout: timedelta | None = getattr(task, name)
        if timeout is not None:
            _check_timeout(findings, f"{path}.{name}", timeout, limits=limits)
    _check_run_for(findings, f"{path}.run_for", task, limits=limits)
    _check_resources(findings, f"{path}.resources", task.resources, limits=limits)
    if task.isolation and task.container:
        findings.add(
            f"{path}.isolation", "must not be given with container, whose runtime isolates it; leave it out"
        )
    _check_env(findings, f"{path}.env", task.env, limits=limits)
    if task.package:
        _check_package(findings, f"{path}.package", task.package, limits=limits)
    for field, url in (("stdout", task.stdout), ("stderr", task.stderr)):
        if url:
            check_object_directory(findings, f"{path}.{field}", url, limits=limits)
    check_mappings(findings, path, task, limits=limits)
    check_input_locale(findings, f"{path}.input_locale", task)
    check_logs(findings, f"{path}.logs", task, limits=limits)
    check_container(findings, f"{path}.container", task, limits=limits)


def _check_command(findings: Findings, path: str, command: Command, *, limits: SpecLimits) -> None:
    match command:
        case ShellLine(line=line):
            if not line.strip():
                findings.add(f"{path}.shell", "must not be empty")
            check_text(findings, f"{path}.shell", line, longest_bytes=limits.command_bytes)
        case Argv(args=()):
            findings.add(f"{path}.command", "must be given: a program with its arguments, or a shell line")
        case Argv(args=args):
            if not args[0]:
                findings.add(f"{path}.command[0]", "must name a program (is empty)")
            if len(args) > limits.arguments:
                findings.add(
                    f"{path}.command", f"must have at most {limits.arguments} arguments (has {len(args)})"
                )
            for position, arg in enumerate(args):
                check_text(findings, f"{path}.command[{position}]", arg, longest_bytes=limits.command_bytes)
            check_together(findings, f"{path}.command", args, longest_bytes=limits.command_bytes)


def _check_timeout(findings: Findings, path: str, timeout: timedelta, *, limits: SpecLimits) -> None:
    low, high = limits.timeout_min, limits.timeout_max
    if timeout < low:
        findings.add(path, f"must be >= {low.total_seconds():g} s (is {timeout.total_seconds():g} s)")
    elif timeout > high:
        findings.add(path, f"must be <= {high.days} days (is {timeout})")


def _check_run_for(findings: Findings, path: str, task: TaskSpec, *, limits: SpecLimits) -> None:
    run_for, high = task.run_for, limits.run_for_max
    if run_for is None:
        return
    if task.disconnect is DisconnectPolicy.FAST_REPLACE and run_for:
        findings.add(path, "must not be given with fast_replace, which ends the command at once")
    elif run_for < timedelta(0):
        findings.add(path, f"must be >= 0 s (is {run_for.total_seconds():g} s)")
    elif run_for > high:
        findings.add(path, f"must be <= {high.days} days (is {run_for})")


def _check_resources(findings: Findings, path: str, needs: Resources, *, limits: SpecLimits) -> None:
    check_between(findings, f"{path}.slots", needs.slots, low=1, high=limits.slots)
    check_between(findings, f"{path}.cpu", needs.cpu, low=0, high=limits.cpu)
    check_between(findings, f"{path}.memory", needs.memory_bytes, low=0, high=limits.memory_bytes)
    check_between(findings, f"{path}.gpus", needs.gpus, low=0, high=limits.gpus)
    check_between(findings, f"{path}.pids", needs.pids, low=0, high=limits.pids)
    check_between(findings, f"{path}.open_files", needs.open_files, low=0, high=limits.open_files)
    if 0 < needs.open_files < FEWEST_OPEN_FILES:
        findings.add(
            f"{path}.open_files",
            f"must be at least {FEWEST_OPEN_FILES}, or 0 for the node's own limit (is {needs.open_files}):"
            " programs would not start",
        )


def _check_env(findings: Findings, path: str, env: Mapping[str, str], *, limits: SpecLimits) -> None:
    if len(env) > limits.env_entries:
        findings.add(path, f"must have at most {limits.env_entries} entries (has {len(env)})")
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            findings.add(
                path, f"{show(name)} must be a letter or '_', followed by letters, digits and '_' only"
            )
            continue
        if name.startswith(RESERVED_ENV_PREFIX):
            findings.add(f"{path}.{name}", f"must not begin with {RESERVED_ENV_PREFIX}, which is ours")
        check_text(findings, f"{path}.{name}", value, longest_bytes=limits.env_bytes)
    check_together(findings, path, [*env, *env.values()], longest_bytes=limits.env_bytes)


def _check_package(findings: Findings, path: str, url: str, *, limits: SpecLimits) -> None:
    if check_object_url(findings, path, url, limits=limits) and not url.endswith(ARCHIVE_SUFFIXES):
        findings.add(path, f"must be an archive: {', '.join(ARCHIVE_SUFFIXES)} (is {show(url)})")
