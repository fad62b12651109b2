"""job.cfg, the INI job file of the Alibaba service's own command line, as a native document.

    [DEFAULT]
    job_name=log-count
    pack=./log-count/
    deps=split->count;count->merge

    [count]
    cmd=python3 count.py
    nodes=3

`[DEFAULT]` is the job and the defaults of every task, each other section a task. What only has a meaning in
the vendor's cloud is named in a note, never dropped in silence. Checks are those of the native form; their
paths are told in this file's words (`[count] nodes`).
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from configparser import Error as IniError
from configparser import RawConfigParser
from itertools import pairwise
from pathlib import Path
from typing import Any

from windlass.documents import JobDocument
from windlass.shorthand import parse_docker, parse_env, parse_mappings
from windlass_proto.checks import nearest
from windlass_proto.errors import InvalidJob, Problem

_DEFAULT = "DEFAULT"
_LONELY_TASK = "task"
_JOB_NAME = "cli-job"
_JOB_KEYS = {
    "job_name": "name",
    "description": "description",
    "priority": "priority",
    "force": "fail_on_instance_failure",
}
_TASK_KEYS = {
    "cmd": "command",
    "pack": "package",
    "nodes": "instances",
    "timeout": "timeout",
    "cluster": "cluster",
    "env": "env",
    "read_mount": "inputs",
    "mount": "inputs",
    "write_mount": "outputs",
    "docker": "container",
}
_VENDOR_KEYS = {
    "auto_release": "finished jobs are kept until you delete them",
    "notification_endpoint": "notifications are not sent yet",
    "notification_topic": "notifications are not sent yet",
    "notification_events": "notifications are not sent yet",
    "image": "commands run on the node as it is",
    "type": "machine types are the cluster's own",
    "resource_type": "machine types are the cluster's own",
    "spot_price_limit": "machine types are the cluster's own",
    "disk": "disks are the cluster's own",
    "user_data": "machines are set up by the cluster",
    "vpc_cidr_block": "networks are the cluster's own",
    "vpc_id": "networks are the cluster's own",
    "no_cache_support": "inputs are copied before the command starts",
    "nas_access_group": "NFS mounts are not there yet",
    "nas_file_system": "NFS mounts are not there yet",
    "reserve_on_fail": "nodes are not given back when a task fails",
    "log_mapping": "only stdout and stderr are collected",
    "lock": "inputs are copied before the command starts",
    "locale": "file names are UTF-8",
}
_BOOLEANS = {
    word: value
    for value, words in ((True, ("yes", "true", "on", "1")), (False, ("no", "false", "off", "0")))
    for word in words
}
_LONE_PERCENT = re.compile(r"(?<!%)(?:%%)*%(?!%)")
_VENDOR_CLUSTER = re.compile(r"cls-|img=|img-")
_OWN_TASK_KEY = {native: own for own, native in reversed(_TASK_KEYS.items())} | {
    "shell": "cmd",
    "after": "deps",
}
_OWN_JOB_KEY = {native: own for own, native in _JOB_KEYS.items()} | {"tasks": "deps"}


def read_cfg(text: str, *, directory: Path, origin: str) -> JobDocument:
    """Raises InvalidJob when the text is not INI at all; other problems are in the document."""
    parser = RawConfigParser(default_section="", interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the case
    try:
        parser.read_string(text, source=origin)
    except IniError as error:
        message = "is not a valid INI file: " + " ".join(str(error).split())
        raise InvalidJob([Problem(path="", message=message)]) from error
    sections = {name: dict(parser.items(name)) for name in parser.sections()}
    reader = _CfgReader(_variables(sections))
    content = reader.content(sections)
    return JobDocument(
        content=content,
        directory=directory,
        origin=origin,
        problems=tuple(reader.problems),
        notes=tuple(reader.notes),
        own_path=_own_path,
    )


def parse_deps(text: str) -> list[tuple[str, str]]:
    """`split->count1,count2;count1,count2->merge` -> (earlier, later) pairs. Raises ValueError."""
    pairs: list[tuple[str, str]] = []
    for chain in filter(None, (part.strip() for part in text.split(";"))):
        groups = [[name.strip() for name in side.split(",")] for side in chain.split("->")]
        if len(groups) < 2 or not all(name for group in groups for name in group):
            raise ValueError(f"must be like split->count;count->merge (is {chain!r})")
        for earlier, later in pairwise(groups):
            pairs.extend((before, after) for before in earlier for after in later)
    return pairs


def _variables(sections: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {
        key: value
        for section in sections.values()
        for key, value in section.items()
        if key.startswith("$") and len(key) > 1
    }


def _own_path(path: str) -> str:
    """`tasks.count.instances` -> `[count] nodes`."""
    parts = path.split(".", 2)
    if parts[0] == "defaults" and len(parts) > 1:
        parts = ["tasks", _DEFAULT, ".".join(parts[1:])]
    if parts[0] != "tasks" or len(parts) < 2:
        return _OWN_JOB_KEY.get(path, path)
    if len(parts) == 2:
        return f"[{parts[1]}]"
    name = re.match(r"\w*", parts[2])
    field = name.group() if name else ""
    return f"[{parts[1]}] {_OWN_TASK_KEY.get(field, field)}{parts[2][len(field) :]}"


class _CfgReader:
    """Gathers problems and notes while sections become tasks."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        names = sorted(variables, key=len, reverse=True)
        self._variables = variables
        self._variable = re.compile("|".join(map(re.escape, names))) if names else None
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def content(self, sections: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
        """The whole file in the native form."""
        job: dict[str, Any] = {"name": _JOB_NAME}
        tasks: dict[str, dict[str, Any]] = {}
        deps = ""
        for section, raw in sections.items():
            values = self._values(section, raw)
            deps = values.pop("deps", deps) if section == _DEFAULT else deps
            job.update(self._job_fields(section, values))
            tasks[section] = self._task_fields(section, values)
        defaults = tasks.pop(_DEFAULT, {})
        if not tasks:
            tasks = {_LONELY_TASK: {}}
        self._order(tasks, deps)
        return {**job, "defaults": defaults, "tasks": tasks}

    def _values(self, section: str, raw: Mapping[str, str]) -> dict[str, str]:
        values: dict[str, str] = {}
        for key, value in raw.items():
            if key.startswith("$"):
                continue
            if _LONE_PERCENT.search(value):
                self._complain(f"[{section}] {key}", f"a percent sign must be doubled: %% (is {value!r})")
                if key.lower() != "cmd":  # without one, more would be told: that there is nothing to run
                    continue
            values[key.lower()] = self._substituted(value).replace("%%", "%").strip()
        return values

    def _substituted(self, value: str) -> str:
        if self._variable is None:
            return value
        return self._variable.sub(lambda match: self._variables[match.group()], value)

    def _job_fields(self, section: str, values: dict[str, str]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key in [key for key in values if key in _JOB_KEYS]:
            value = values.pop(key)
            place = f"[{section}] {key}"
            match key:
                case "priority":
                    fields["priority"] = self._number(place, value)
                case "force":
                    forced = self._boolean(place, value)
                    fields["fail_on_instance_failure"] = None if forced is None else not forced
                case _:
                    fields[_JOB_KEYS[key]] = value
        return fields

    def _task_fields(self, section: str, values: Mapping[str, str]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in values.items():
            place = f"[{section}] {key}"
            if key in _VENDOR_KEYS:
                self.notes.append(f"{place} is ignored: {_VENDOR_KEYS[key]}")
                continue
            if key not in _TASK_KEYS:
                self._complain(place, _unknown_key(key, section))
                continue
            try:
                self._put(fields, _TASK_KEYS[key], (place, value))
            except ValueError as error:
                self._complain(place, str(error))
        return fields

    def _put(self, fields: dict[str, Any], field: str, given: tuple[str, str]) -> None:
        place, value = given
        match field:
            case "command":
                fields["command"] = [value]
                fields["command"] = shlex.split(value)
            case "instances":
                fields["instances"] = self._number(place, value)
            case "env":
                fields["env"] = parse_env(value)
            case "inputs":
                _add_targets(fields.setdefault("inputs", {}), parse_mappings(value))
            case "outputs":
                pairs = [(directory, url) for url, directory in parse_mappings(value)]
                _add_targets(fields.setdefault("outputs", {}), pairs)
            case "container":
                fields["container"] = parse_docker(value)
            case "cluster" if _VENDOR_CLUSTER.match(value):
                self.notes.append(
                    f"{place} is ignored: {value} names the vendor's machines, not a cluster here"
                )
            case _:
                fields[field] = value

    def _order(self, tasks: dict[str, dict[str, Any]], deps: str) -> None:
        try:
            pairs = parse_deps(deps)
        except ValueError as error:
            self._complain("[DEFAULT] deps", str(error))
            return
        for name in sorted({name for pair in pairs for name in pair} - tasks.keys()):
            close = nearest(name, list(tasks))
            hint = f"; did you mean {close!r}?" if close else ""
            self._complain("[DEFAULT] deps", f"there is no section [{name}]{hint}")
        for earlier, later in pairs:
            if earlier in tasks and later in tasks and earlier not in tasks[later].get("after", ()):
                tasks[later].setdefault("after", []).append(earlier)

    def _number(self, place: str, value: str) -> int | None:
        try:
            return int(value)
        except ValueError:
            self._complain(place, f"must be a whole number (is {value!r})")
            return None

    def _boolean(self, place: str, value: str) -> bool | None:
        if value.lower() not in _BOOLEANS:
            self._complain(place, f"must be yes or no (is {value!r})")
        return _BOOLEANS.get(value.lower())

    def _complain(self, place: str, message: str) -> None:
        self.problems.append(Problem(path=place, message=message))


def _add_targets(targets: dict[str, list[str]], pairs: Sequence[tuple[str, str]]) -> None:
    for source, target in pairs:
        if target not in targets.setdefault(source, []):
            targets[source].append(target)


def _unknown_key(key: str, section: str) -> str:
    if key == "deps":
        return f"belongs in [{_DEFAULT}]"
    known = [*_TASK_KEYS, *_JOB_KEYS, *_VENDOR_KEYS, "deps"]
    close = nearest(key, known)
    hint = f"did you mean {close!r}?" if close else f"known are {', '.join(sorted(known))}"
    return f"unknown key in [{section}]; {hint}"
