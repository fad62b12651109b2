"""Where the agent's settings come from: a TOML file, then WINDLASS_AGENT_* variables, then arguments; checked
whole before anything starts. The environment is read here and nowhere else.

What can be set is in `settings.py`.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from windlass_agent.settings import AgentSettings
from windlass_proto import failpoints
from windlass_proto.errors import InvalidRequest
from windlass_proto.model.storage import StorageProfiles, profiles_from_mapping

ENV_PREFIX = "WINDLASS_AGENT_"
_SECRET = "join_token"
"""The setting whose value is in no message."""


def load_settings(arguments: Sequence[str] | None = None) -> AgentSettings:
    """From arguments, environment and the file they name. Raises InvalidRequest with every problem."""
    given = {
        name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None
    }
    config_file = given.pop("config", None) or os.environ.get(f"{ENV_PREFIX}CONFIG")
    document: dict[str, Any] = _read_toml(Path(config_file)) if config_file else {}
    for path, value in _from_environment(os.environ).items():
        table = document
        for part in path[:-1]:
            table = table.setdefault(part, {})
        table[path[-1]] = value
    if "isolation" in given:
        document.setdefault("work", {})["isolation"] = given.pop("isolation")
    document.update(given)
    try:
        return TypeAdapter(AgentSettings).validate_python(document)
    except ValidationError as problem:
        where = f"settings ({config_file}, environment, arguments): " if config_file else "settings: "
        raise InvalidRequest(where + "; ".join(map(_in_words, problem.errors()))) from problem


def _in_words(error: ErrorDetails) -> str:
    """The setting, what is wrong with it, and its value."""
    name = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "missing":
            return f"{name}: must be given"
        case "unexpected_keyword_argument":
            return f"{name}: is not a setting"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    return f"{name}: {message}" if name == _SECRET else f"{name}: {message} (is {error['input']!r})"


def failpoint() -> str:
    """Where a test wants this process, or its keepers, to die; "" = nowhere."""
    return failpoints.asked_for(os.environ)


def load_storage(path: Path | None) -> StorageProfiles:
    """The storage profiles of the file; none without a file. Raises InvalidRequest."""
    if path is None:
        return StorageProfiles(by_scheme={})
    try:
        return profiles_from_mapping(_read_toml(path))
    except ValueError as problem:
        raise InvalidRequest(f"storage file {path}: {problem}") from problem


def read_join_token(settings: AgentSettings) -> str:
    """The token, from where it was given; "" when it was not."""
    if settings.join_token or settings.join_token_file is None:
        return settings.join_token
    try:
        return settings.join_token_file.read_text().strip()
    except OSError as problem:
        raise InvalidRequest(f"join token file {settings.join_token_file}: {problem.strerror}") from problem


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as problem:
        raise InvalidRequest(f"file {path}: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InvalidRequest(f"file {path}: {problem}") from problem


def _from_environment(environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    known = _variable_names(AgentSettings, ())
    known_names = {*known, f"{ENV_PREFIX}CONFIG"}
    unknown = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known_names)
    if unknown:
        raise InvalidRequest(f"settings: there is no setting for the variable {unknown[0]}")
    return {path: environ[name] for name, path in known.items() if name in environ}


def _variable_names(settings: type, path: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Of every setting in the tree: `link.poll_wait` is WINDLASS_AGENT_LINK_POLL_WAIT."""
    hints = get_type_hints(settings)
    names: dict[str, tuple[str, ...]] = {}
    for one in fields(settings):
        here = (*path, one.name)
        if is_dataclass(hints[one.name]):
            names |= _variable_names(hints[one.name], here)
        else:
            names[ENV_PREFIX + "_".join(here).upper()] = here
    return names


_EXAMPLES = """\
examples:
  windlass-agent --state /var/lib/windlass-agent --coordinator batch.example.com:7450 \\
      --join-token-file /etc/windlass/join-token --slots 4
  windlass-agent --state ./agent --coordinator 127.0.0.1:7450 --join-token TOKEN --storage storage.toml

windlass-agent notice --state DIR --in 30s tells a running agent that its machine will be taken away.
windlass-agent leave --state DIR --within 2h lets it finish what it has and leave for good.

Every setting is also a variable (WINDLASS_AGENT_SLOTS, WINDLASS_AGENT_LINK_POLL_WAIT, ...) and a key of the
--config file (slots = 4, [link] poll_wait = "30s"). SIGTERM leaves running commands alone: the next agent
with the same --state takes them over. SIGINT ends them.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="windlass-agent",
        description="Runs on a machine, pulls work from a Windlass coordinator and runs it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--state", metavar="DIR", help="where the agent keeps what it must remember")
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT,...", help="where the coordinator (or one of several) listens"
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--join-token", metavar="TOKEN", help="needed once, to join")
    token.add_argument("--join-token-file", metavar="FILE", help="file that holds the join token")
    parser.add_argument("--name", help="how people know the node (default: its host name)")
    parser.add_argument("--slots", metavar="N", type=int, help="attempts at once (default 1)")
    parser.add_argument("--gpus", metavar="N|LIST", help="GPUs for commands (default: all that NVML finds)")
    parser.add_argument("--storage", metavar="FILE", help="storage profiles (TOML)")
    parser.add_argument("--config", metavar="FILE", help="settings (TOML)")
    parser.add_argument(
        "--isolation",
        choices=("auto", "dev", "standard", "strict"),
        help="what commands are kept from (default: standard where the machine can, else dev)",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument(
        "--exit-kills", action="store_const", const=True, help="SIGTERM also ends running commands"
    )
    return parser
