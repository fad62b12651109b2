"""Checks of a whole job."""

from collections.abc import Mapping

from windlass_proto.checks.graph import check_order
from windlass_proto.checks.limits import DEFAULT_LIMITS, SpecLimits
from windlass_proto.checks.task import check_task
from windlass_proto.checks.words import Findings, check_between, check_name, check_text, show
from windlass_proto.errors import Problem
from windlass_proto.model.specs import JobSpec, TaskSpec


def check_job(spec: JobSpec, limits: SpecLimits = DEFAULT_LIMITS) -> list[Problem]:
    """Every problem of the specification; none = it can be submitted."""
    findings = Findings()
    _check_head(findings, spec, limits)
    if not spec.tasks:
        findings.add("tasks", "must hold at least one task")
    if len(spec.tasks) > limits.tasks:
        findings.add("tasks", f"must be at most {limits.tasks} (are {len(spec.tasks)})")
        return findings.problems
    by_path = _check_names(findings, spec, limits)
    for path, task in by_path.items():
        check_task(findings, path, task, limits=limits)
    _check_dependencies(findings, by_path, limits)
    if findings.seen_bytes > limits.spec_bytes:
        findings.add("", f"must hold at most {limits.spec_bytes} bytes of text (holds {findings.seen_bytes})")
    return findings.problems


def _check_head(findings: Findings, spec: JobSpec, limits: SpecLimits) -> None:
    if not spec.name:
        findings.add("name", "must be given")
    elif not spec.name.isprintable():
        findings.add("name", f"must hold printable characters only (is {show(spec.name)})")
    elif len(spec.name) > limits.name_length:
        findings.add("name", f"must be at most {limits.name_length} characters long (is {len(spec.name)})")
    check_text(findings, "description", spec.description, longest_bytes=limits.description_bytes)
    check_between(findings, "priority", spec.priority, low=-limits.priority, high=limits.priority)


def _check_names(findings: Findings, spec: JobSpec, limits: SpecLimits) -> Mapping[str, TaskSpec]:
    """The tasks by their path: `tasks.<name>`, or `tasks[3]` where the name cannot tell them apart."""
    by_path: dict[str, TaskSpec] = {}
    for position, task in enumerate(spec.tasks):
        path = f"tasks[{position}]"
        if check_name(findings, f"{path}.name", task.name, longest=limits.name_length):
            if f"tasks.{task.name}" in by_path:
                findings.add(f"{path}.name", f"must be unique; another task is called {task.name} too")
            else:
                path = f"tasks.{task.name}"
        by_path[path] = task
    return by_path


def _check_dependencies(findings: Findings, by_path: Mapping[str, TaskSpec], limits: SpecLimits) -> None:
    count = sum(len(task.after) for task in by_path.values())
    if count > limits.dependencies:
        findings.add("tasks", f"must have at most {limits.dependencies} dependencies in all (have {count})")
        return
    paths: dict[str, str] = {}
    parents: dict[str, tuple[str, ...]] = {}
    for path, task in by_path.items():
        paths.setdefault(task.name, path)
        parents.setdefault(task.name, task.after)
    check_order(findings, parents, paths)
