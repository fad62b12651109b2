"""Job files as plain data: YAML and JSON text in, mappings out, nothing lost on the way.

Both formats let a key stand twice and keep the last one; here that is an error, because the other one was
meant too.
"""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from windlass_proto.errors import InvalidJob, Problem

_VALUES_MOST = 1_000_000
_TOO_DEEP = Problem(path="", message="is nested far deeper than any job file has to be")


def _as_written(path: str) -> str:
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDocument:
    """What a job file or a command line says, before anything of it is checked."""

    content: Mapping[str, Any]
    """In the native form (jobfile.py)."""
    directory: Path
    """Where relative package paths start."""
    origin: str
    """The file's name, for messages."""
    problems: tuple[Problem, ...] = ()
    """Found while reading; paths in the native form."""
    notes: tuple[str, ...] = ()
    """What was understood but has no meaning here, one line each."""
    own_path: Callable[[str], str] = _as_written
    """From a path of the native form to what the author of this file wrote."""

    def in_own_words(self, problems: Sequence[Problem]) -> InvalidJob:
        """The problems as one error, with the places as the author knows them."""
        return InvalidJob([replace(problem, path=self.own_path(problem.path)) for problem in problems])


def read_yaml(text: str, *, directory: Path, origin: str) -> JobDocument:
    """Raises InvalidJob that names the line, or says that the text is not a mapping."""
    try:
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise InvalidJob([Problem(path="", message=_yaml_message(error))]) from error
    except yaml.YAMLError as error:
        raise InvalidJob([Problem(path="", message=f"is not valid YAML: {error}")]) from error
    except RecursionError:
        raise InvalidJob([_TOO_DEEP]) from None
    _check_size(content)
    return _document(content, directory, origin)


def read_json(text: str, *, directory: Path, origin: str) -> JobDocument:
    """Raises InvalidJob that names the line, or says that the text is not a mapping."""
    try:
        content = json.loads(text, object_pairs_hook=_strict_object)
    except json.JSONDecodeError as error:
        message = f"is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        raise InvalidJob([Problem(path="", message=message)]) from error
    except RecursionError:
        raise InvalidJob([_TOO_DEEP]) from None
    return _document(content, directory, origin)


def _check_size(content: object) -> None:
    """A few lines of aliases of aliases mean more values than there are atoms; whoever looks at each of them
    would never end. Raises InvalidJob."""
    left = [content]
    for _ in range(_VALUES_MOST):
        if not left:
            return
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    raise InvalidJob([Problem(path="", message=f"must hold at most {_VALUES_MOST} values, aliases counted")])


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, but a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _strict_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidJob([Problem(path="", message=f"the key {key!r} stands twice")])
        found[key] = value
    return found


def _yaml_message(error: yaml.MarkedYAMLError) -> str:
    what = error.problem or error.context or "cannot be read"
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"is not valid YAML: {where}{what}"


def _document(content: object, directory: Path, origin: str) -> JobDocument:
    if not isinstance(content, dict):
        message = "must be a mapping with name and tasks"
        raise InvalidJob([Problem(path="", message=message)])
    return JobDocument(content=content, directory=directory, origin=origin)
