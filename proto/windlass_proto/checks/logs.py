"""Checks of log files that are copied out after a command."""

from windlass_proto.checks.limits import SpecLimits
from windlass_proto.checks.mappings import check_object_url
from windlass_proto.checks.words import Findings, check_text, show
from windlass_proto.model.specs import TaskSpec


def check_logs(findings: Findings, path: str, task: TaskSpec, *, limits: SpecLimits) -> None:
    """Each alone, and that no two want to be one object."""
    if len(task.logs) > limits.mappings:
        findings.add(path, f"must be at most {limits.mappings} (are {len(task.logs)})")
    mapped = [
        _parts(directory)
        for directory in (*(m.source for m in task.outputs), *(m.destination for m in task.inputs))
        if directory.startswith("/")
    ]
    holders: dict[str, str] = {}
    for position, log in enumerate(task.logs):
        here = f"{path}[{position}]"
        is_good = _check_source(findings, f"{here}.source", log.source, mapped, limits=limits)
        if not check_object_url(findings, f"{here}.destination", log.destination, limits=limits):
            continue
        is_directory = log.destination.endswith("/")
        target = log.destination + log.source.rpartition("/")[2] if is_directory else log.destination
        if is_good and target in holders:
            findings.add(
                f"{here}.destination",
                f"must be another one: {show(target)} is the log file {show(holders[target])} already",
            )
        holders.setdefault(target, log.source)


def _check_source(
    findings: Findings, path: str, source: str, mapped: list[list[str]], *, limits: SpecLimits
) -> bool:
    before = len(findings.problems)
    parts = _parts(source)
    if not check_text(findings, path, source, longest_bytes=limits.path_bytes):
        pass
    elif not parts or source.endswith("/"):
        findings.add(path, f"must be a file, such as run.log (is {show(source)})")
    elif not source.isprintable():
        findings.add(path, f"must hold printable characters only (is {show(source)})")
    elif ".." in parts:
        findings.add(path, f"must not contain '..' (is {show(source)})")
    elif source.startswith("/") and not any(parts[: len(one)] == one for one in mapped):
        findings.add(
            path,
            "must be relative to the work directory, or lie in an absolute directory of inputs or outputs"
            f" (is {show(source)})",
        )
    return len(findings.problems) == before


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
