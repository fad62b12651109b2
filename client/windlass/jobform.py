"""The form of a job file, field by field, and its problems in our words.

Types are strict: `instances: "3"` is told, not repaired. What a value may be beyond its type is decided by
`windlass_proto.checks`, the same way for every client.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from windlass.quantities import parse_duration, parse_size
from windlass_proto.checks import nearest
from windlass_proto.errors import Problem
from windlass_proto.model.specs import DisconnectPolicy, FullSpool, Isolation


def _names(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _paths(value: object) -> object:
    if isinstance(value, str) and "://" not in value:
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, str) else value


def _duration(value: object) -> object:
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, str | int | float):
        return parse_duration(value)
    raise ValueError(f"must be a duration such as 90s, 30m or 1h30m, or seconds (is {value!r})")


def _size(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, str | int):
        return parse_size(value)
    raise ValueError(f"must be a size such as 512MiB or 2G, or bytes (is {value!r})")


def _env_text(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _word_of(words: type[StrEnum]) -> Callable[[object], object]:
    def read(value: object) -> object:
        if value is None or value in list(words):
            return None if value is None else words(str(value))
        known = ", ".join(words)
        close = nearest(str(value), list(words))
        hint = f"; did you mean {close}?" if close else ""
        raise ValueError(f"must be one of {known} (is {value!r}){hint}")

    return read


def _image(value: object) -> object:
    return {"image": value} if isinstance(value, str) else value


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TargetForm(_Form):
    destination: str
    storage: str = ""


def _targets(value: object) -> object:
    """A URL, a URL with its storage, or a list of either."""
    several = value if isinstance(value, list) else [value]
    return [{"destination": one} if isinstance(one, str) else one for one in several]


_Targets = dict[str, Annotated[list[str], BeforeValidator(_names)]]


class ResourcesForm(_Form):
    cpu: float | None = None
    memory: Annotated[int | None, BeforeValidator(_size)] = None
    slots: int | None = None
    gpus: int | None = None
    pids: int | None = None
    open_files: int | None = None


class MountForm(_Form):
    source: str
    destination: str
    writable: bool = False
    options: str = ""
    storage: str = ""


class ContainerForm(_Form):
    image: str = ""
    registry: str = ""
    archive: str = ""
    login: str = ""


class TaskForm(_Form):
    command: list[str] | None = None
    shell: str | None = None
    after: Annotated[list[str] | None, BeforeValidator(_names)] = None
    instances: int | None = None
    package: Annotated[list[str] | None, BeforeValidator(_paths)] = None
    env: dict[str, Annotated[str, BeforeValidator(_env_text)]] | None = None
    timeout: Annotated[timedelta | None, BeforeValidator(_duration)] = None
    retries: int | None = None
    resources: ResourcesForm = ResourcesForm()
    cluster: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    inputs: _Targets | None = None
    mounts: list[MountForm] | None = None
    outputs: dict[str, Annotated[list[TargetForm], BeforeValidator(_targets)]] | None = None
    logs: _Targets | None = None
    storage: str | None = None
    input_locale: str | None = None
    input_locks: bool | None = None
    container: Annotated[ContainerForm | None, BeforeValidator(_image)] = None
    isolation: Annotated[Isolation | None, BeforeValidator(_word_of(Isolation))] = None
    disconnect: Annotated[DisconnectPolicy | None, BeforeValidator(_word_of(DisconnectPolicy))] = None
    run_for: Annotated[timedelta | None, BeforeValidator(_duration)] = None
    package_timeout: Annotated[timedelta | None, BeforeValidator(_duration)] = None
    mount_timeout: Annotated[timedelta | None, BeforeValidator(_duration)] = None
    upload_timeout: Annotated[timedelta | None, BeforeValidator(_duration)] = None
    on_full_spool: Annotated[FullSpool | None, BeforeValidator(_word_of(FullSpool))] = None


class JobForm(_Form):
    name: str | None = None
    description: str | None = None
    priority: int | None = None
    fail_on_instance_failure: bool | None = None
    tasks: dict[str, TaskForm] | None = None


_FIELDS: dict[str, tuple[str, ...]] = {
    "job": (*JobForm.model_fields, "defaults"),
    "task": tuple(TaskForm.model_fields),
    "resources": tuple(ResourcesForm.model_fields),
    "container": tuple(ContainerForm.model_fields),
    "mounts": tuple(MountForm.model_fields),
    "outputs": tuple(TargetForm.model_fields),
}

_PARTS = ("resources", "container", "mounts", "outputs")

_MESSAGES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
}


def problems_of(error: ValidationError, *, below: Sequence[str]) -> list[Problem]:
    """Pydantic's errors as problems; `below` is put before each path."""
    return [
        Problem(path=_path((*below, *entry["loc"])), message=_message(entry, (*below, *entry["loc"])))
        for entry in error.errors()
    ]


def _path(place: Sequence[int | str]) -> str:
    path = ""
    for part in place:
        if part == "[key]":
            continue
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _message(entry: ErrorDetails, place: Sequence[int | str]) -> str:
    match entry["type"]:
        case "extra_forbidden":
            return _unknown_field(str(place[-1]), _fields_at(place))
        case "missing":
            return "must be given"
        case "value_error":
            return str(entry["ctx"]["error"])
        case "list_type" if "command" not in place:
            return f"must be text or a list of texts (is {_shown(entry['input'])})"
        case kind if kind in _MESSAGES:
            return f"{_MESSAGES[kind]} (is {_shown(entry['input'])})"
        case _:
            return entry["msg"]


def _fields_at(place: Sequence[int | str]) -> tuple[str, ...]:
    if len(place) == 1:
        return _FIELDS["job"]
    part = next((str(word) for word in place[:-1] if word in _PARTS), "task")
    return _FIELDS[part]


def _unknown_field(name: str, known: Sequence[str]) -> str:
    close = nearest(name, known)
    hint = f"did you mean {close!r}?" if close else f"known are {', '.join(known)}"
    return f"unknown field; {hint}"


def _shown(value: Any) -> str:  # Any: whatever a file may contain
    if value is None:
        return "empty"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
