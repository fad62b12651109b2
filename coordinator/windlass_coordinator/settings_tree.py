"""Fills a tree of frozen dataclasses with settings, and finds everything that is wrong with them at once.

It knows how a setting is written (`5m`, `127.0.0.1:7450`), not what settings there are: that is in `config`.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from windlass_proto.checks import nearest
from windlass_proto.errors import InvalidRequest, Problem

_Tree = TypeVar("_Tree")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+)):(\d{1,5})")


class InvalidSettings(InvalidRequest):
    """Settings with all their problems."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """Where a server listens; port 0 = any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a set of settings comes from, for messages."""

    name: str
    """Such as `coordinator.toml`."""


def paths(tree: object, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all settings of a tree: `lease.replace_after`."""
    for field in fields(tree):  # type: ignore[arg-type]  # every caller passes a dataclass
        value = getattr(tree, field.name)
        if _is_section(value):
            yield from paths(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def nested(flat: Mapping[str, object]) -> dict[str, Any]:
    """`{"lease.replace_after": x}` as `{"lease": {"replace_after": x}}`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return tree


def overlay(tree: _Tree, given: Mapping[str, Any], *, origin: Origin) -> tuple[_Tree, list[Problem]]:
    """The tree with what is `given` in place of what it had, and what is wrong with it."""
    problems: list[Problem] = []
    return _overlay(tree, given, problems=problems, origin=origin, prefix=""), problems


def _overlay(
    tree: _Tree, given: Mapping[str, Any], *, problems: list[Problem], origin: Origin, prefix: str
) -> _Tree:
    known = [field.name for field in fields(tree)]  # type: ignore[arg-type]  # as above
    types = get_type_hints(type(tree))
    changes: dict[str, Any] = {}
    for name, value in given.items():
        path = prefix + name
        if name not in known:
            problems.append(_unknown(path, nearest(name, known), origin))
            continue
        current = getattr(tree, name)
        if _is_section(current):
            changes[name] = _section(current, value, problems=problems, origin=origin, path=path)
            continue
        try:
            changes[name] = _read(value, types[name])
        except ValueError as error:
            problems.append(Problem(path=path, message=f"{error} ({origin.name})"))
    return replace(tree, **changes)  # type: ignore[type-var]  # as above


def _section(
    current: Any, value: object, *, problems: list[Problem], origin: Origin, path: str
) -> object:  # Any: a section is whatever dataclass the field holds
    if not isinstance(value, Mapping):
        problems.append(Problem(path=path, message=f"must be a section with settings ({origin.name})"))
        return current
    return _overlay(current, value, problems=problems, origin=origin, prefix=path + ".")


def _unknown(path: str, guess: str | None, origin: Origin) -> Problem:
    hint = f": did you mean {guess}?" if guess else ""
    return Problem(path=path, message=f"is not a setting{hint} ({origin.name})")


def _is_section(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, HostPort)


def _read(value: object, kind: Any) -> object:  # Any: the annotation of a field
    """A setting of the annotated type; raises ValueError with what it must be."""
    if kind is bool:
        return _flag(value)
    if kind is int:
        return _whole_number(value)
    if kind is float:
        return _number(value)
    if kind is timedelta:
        return _duration(value)
    if kind == timedelta | None:
        return None if value in ("", "0") or value == 0 else _duration(value)
    if not isinstance(value, str):
        raise ValueError(f"must be text (is {value!r})")
    if kind is HostPort:
        return read_address(value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _choice(value, kind)
    if kind == Path | None or kind is Path:
        return Path(value).expanduser()
    return value


def read_address(text: str) -> HostPort:
    """`127.0.0.1:7450`, `[::1]:7450` or `localhost:0`; raises ValueError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[3]) > 65535:
        raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:7450 (is {text!r})")
    return HostPort(host=found[1] or found[2], port=int(found[3]))


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError(f"must be true or false (is {value!r})")


def _whole_number(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"must be a whole number, 0 or more (is {value!r})")


def _number(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}(\.\d{1,9})?", value):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise ValueError(f"must be a number above 0 (is {value!r})")


def _duration(value: object) -> timedelta:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is not None and float(found[1]) > 0:
        seconds = float(found[1]) * _UNITS[found[2]]
        if seconds <= timedelta.max.total_seconds() / 2:
            return timedelta(seconds=seconds)
    raise ValueError(f"must be a duration above 0 with its unit, such as 500ms, 30s, 5m, 24h (is {value!r})")


def _choice(value: str, kind: type[StrEnum]) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(kind)} (is {value!r})") from None
