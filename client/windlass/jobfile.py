"""The native job file: plain data in, a checked JobSpec out, with every problem at once.

    name: log-count
    defaults: {package: ./log-count/}
    tasks:
      split: {command: [python3, split.py]}
      count: {command: [python3, count.py], after: split, instances: 3}

Structural problems (unknown fields, wrong types) and semantic ones (`check_job`) are told together: what
has a wrong form is left out, and the rest is still checked. Nothing is uploaded here; local packages are
named in the answer and become URLs later (package.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from windlass import jobcfg
from windlass.documents import JobDocument, read_json, read_yaml
from windlass.jobform import JobForm, TaskForm, problems_of
from windlass_proto.checks import SpecLimits, check_job
from windlass_proto.errors import InvalidJob, NotFound, Problem
from windlass_proto.model.ids import DEFAULT_CLUSTER, ClusterName, TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import (
    Argv,
    Command,
    Container,
    DisconnectPolicy,
    FullSpool,
    InputMapping,
    JobSpec,
    LogMapping,
    OutputMapping,
    ShellLine,
    TaskSpec,
)

_PLACEHOLDER = Argv(args=("true",))
_ROUNDS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """A job that may be submitted once its local packages are uploaded."""

    spec: JobSpec
    packages: Mapping[TaskName, tuple[Path, ...]]
    """Local files or one folder, per task that has a local package."""
    notes: tuple[str, ...]
    """What the file says that has no meaning here."""

    def with_packages(self, urls: Mapping[TaskName, str]) -> JobSpec:
        """The specification with the uploaded packages' URLs in place."""
        tasks = tuple(replace(task, package=urls.get(task.name, task.package)) for task in self.spec.tasks)
        return replace(self.spec, tasks=tasks)


def read_job_file(path: Path, text: str | None = None) -> JobDocument:
    """Reads a job file by its suffix: .json, .cfg or .ini, else YAML. `text` stands in for its content."""
    if text is None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise NotFound(f"cannot read the job file {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidJob([Problem(path="", message="is not UTF-8 text")]) from error
    directory = path.absolute().parent
    match path.suffix.lower():
        case ".json":
            return read_json(text, directory=directory, origin=path.name)
        case ".cfg" | ".ini":
            return jobcfg.read_cfg(text, directory=directory, origin=path.name)
        case _:
            return read_yaml(text, directory=directory, origin=path.name)


def merge_task(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` wins; maps are merged, everything else is replaced, and a command replaces a shell line."""
    merged = dict(below)
    if "command" in above or "shell" in above:
        merged.pop("command", None)
        merged.pop("shell", None)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def with_overrides(document: JobDocument, job: Mapping[str, Any], task: Mapping[str, Any]) -> JobDocument:
    """The document with job-level fields replaced, and `task` laid over each of its tasks."""
    content = {**document.content, **job}
    tasks = content.get("tasks")
    if task and isinstance(tasks, Mapping):
        content["tasks"] = {
            name: merge_task(one, task) if isinstance(one, Mapping) else one for name, one in tasks.items()
        }
    return replace(document, content=content)


def plan_job(document: JobDocument) -> PlannedJob:
    """Checks everything. Raises InvalidJob with all problems, in the words of the document's author."""
    form, problems = _read_form(document.content)
    problems = [*document.problems, *problems]
    reader = _Reader(directory=document.directory)
    spec = reader.job(form)
    # Of what was left out because of its form the rest must not be told as missing or wrong once more.
    formal = tuple(known.path for known in problems)
    for problem in reader.problems:
        if not any(_covers(path, problem.path) or _covers(problem.path, path) for path in formal):
            problems.append(problem)
    formal = tuple(known.path for known in problems)
    problems.extend(
        problem
        for problem in check_job(
            spec, SpecLimits(local_files=True)
        )  # whether it may is the coordinator's to say
        if not any(_covers(path, problem.path) for path in formal)
    )
    if problems:
        raise document.in_own_words(problems)
    return PlannedJob(spec=spec, packages=reader.packages, notes=document.notes)


def _covers(known: str, path: str) -> bool:
    return path == known or (known != "" and path.startswith((f"{known}.", f"{known}[")))


def _read_form(content: Mapping[str, Any]) -> tuple[JobForm, list[Problem]]:
    defaults, problems = _read_defaults(content.get("defaults"))
    plain = {key: value for key, value in content.items() if key != "defaults"}
    tasks = plain.get("tasks")
    if isinstance(tasks, Mapping):
        plain["tasks"] = {
            name: merge_task(defaults, task) if isinstance(task, Mapping) else task
            for name, task in tasks.items()
        }
    for _ in range(_ROUNDS_MAX):
        try:
            return JobForm.model_validate(plain), problems
        except ValidationError as error:
            problems.extend(problems_of(error, below=()))
            plain = _without(plain, [entry["loc"] for entry in error.errors()])
    return JobForm(), problems


def _read_defaults(defaults: object) -> tuple[dict[str, Any], list[Problem]]:
    if defaults is None:
        return {}, []
    if not isinstance(defaults, Mapping):
        return {}, [Problem(path="defaults", message="must be a mapping of task fields")]
    try:
        TaskForm.model_validate(defaults)
    except ValidationError as error:
        kept = _without(defaults, [entry["loc"] for entry in error.errors()])
        return kept, problems_of(error, below=("defaults",))
    return dict(defaults), []


def _without(document: Mapping[str, Any], places: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    """The document less what stands at `places`; a broken task stays as an empty one, others refer to it."""
    kept = dict(document)
    for place in places:
        keys = _mapping_keys(place)
        if len(keys) == 2 and keys[0] == "tasks" and isinstance(keys[1], str):
            kept["tasks"] = {**kept.get("tasks", {}), keys[1]: {}}
            continue
        _drop(kept, keys)
    return kept


def _mapping_keys(place: tuple[int | str, ...]) -> list[int | str]:
    """The part of a place that leads through mappings only: a list is dropped as a whole."""
    if place[-1] == "[key]":
        return list(place[:-2])
    keys: list[int | str] = []
    for part in place:
        if isinstance(part, int):
            break
        keys.append(part)
    return keys


def _drop(document: dict[str, Any], keys: Sequence[int | str]) -> None:
    here: dict[Any, Any] = document
    for key in keys[:-1]:
        below = here.get(key)
        if not isinstance(below, Mapping):
            here.pop(key, None)
            return
        here[key] = dict(below)
        here = here[key]
    here.pop(keys[-1], None)


class _Reader:
    """Turns a form into a specification, gathering what only the author's machine can know."""

    def __init__(self, *, directory: Path) -> None:
        self._directory = directory
        self.problems: list[Problem] = []
        self.packages: dict[TaskName, tuple[Path, ...]] = {}

    def job(self, form: JobForm) -> JobSpec:
        if form.name is None:
            self._complain("name", "is missing")
        if form.tasks is None:
            self._complain("tasks", "is missing")
        return JobSpec(
            name=form.name or "unnamed",
            description=form.description or "",
            priority=form.priority or 0,
            fail_on_instance_failure=form.fail_on_instance_failure is not False,
            tasks=tuple(self._task(TaskName(name), task) for name, task in (form.tasks or {}).items()),
        )

    def _task(self, name: TaskName, form: TaskForm) -> TaskSpec:
        resources = form.resources
        return TaskSpec(
            name=name,
            command=self._command(name, form),
            after=tuple(TaskName(parent) for parent in form.after or ()),
            instances=1 if form.instances is None else form.instances,
            package=self._package(name, form),
            env=dict(form.env or {}),
            timeout=form.timeout,
            max_retries=form.retries or 0,
            resources=Resources(
                cpu=resources.cpu or 0.0,
                memory_bytes=resources.memory or 0,
                slots=1 if resources.slots is None else resources.slots,
                gpus=resources.gpus or 0,
                pids=resources.pids or 0,
                open_files=resources.open_files or 0,
            ),
            cluster=ClusterName(form.cluster) if form.cluster else DEFAULT_CLUSTER,
            stdout=form.stdout or "",
            stderr=form.stderr or "",
            inputs=_inputs(form),
            outputs=_outputs(form),
            disconnect=form.disconnect or DisconnectPolicy.KEEP_GOING,
            run_for=form.run_for,
            package_timeout=form.package_timeout,
            mount_timeout=form.mount_timeout,
            upload_timeout=form.upload_timeout,
            on_full_spool=form.on_full_spool or FullSpool.DROP,
            logs=_logs(form),
            storage=form.storage or "",
            input_locale=form.input_locale or "",
            input_locks=form.input_locks or False,
            container=_container(form),
            isolation=form.isolation,
        )

    def _command(self, name: TaskName, form: TaskForm) -> Command:
        if form.command is not None and form.shell is not None:
            self._complain(f"tasks.{name}.command", "stands beside shell; give one of them")
        if form.command is not None:
            return Argv(args=tuple(form.command))
        if form.shell is not None:
            return ShellLine(line=form.shell)
        self._complain(
            f"tasks.{name}.command", "is missing: there is nothing to run (command = a list, shell = a line)"
        )
        return _PLACEHOLDER

    def _package(self, name: TaskName, form: TaskForm) -> str:
        parts = form.package or ()
        if len(parts) == 1 and "://" in parts[0]:
            return parts[0]
        paths = tuple(self._directory / Path(part).expanduser() for part in parts)
        for part, path in zip(parts, paths, strict=True):
            if not path.exists():
                place = "" if part == str(path) else f" (at {path})"
                self._complain(f"tasks.{name}.package", f"there is no file or folder {part!r}{place}")
        if paths:
            self.packages[name] = paths
        return ""

    def _complain(self, path: str, message: str) -> None:
        self.problems.append(Problem(path=path, message=message))


def _inputs(form: TaskForm) -> tuple[InputMapping, ...]:
    """The short form names URL and directory; `mounts` has everything else that a mount may have."""
    short = tuple(
        InputMapping(source=url, destination=directory)
        for url, directories in (form.inputs or {}).items()
        for directory in directories
    )
    return short + tuple(InputMapping(**mount.model_dump()) for mount in form.mounts or ())


def _outputs(form: TaskForm) -> tuple[OutputMapping, ...]:
    return tuple(
        OutputMapping(source=directory, destination=target.destination, storage=target.storage)
        for directory, targets in (form.outputs or {}).items()
        for target in targets
    )


def _logs(form: TaskForm) -> tuple[LogMapping, ...]:
    return tuple(
        LogMapping(source=file, destination=url) for file, urls in (form.logs or {}).items() for url in urls
    )


def _container(form: TaskForm) -> Container | None:
    return None if form.container is None else Container(**form.container.model_dump())
