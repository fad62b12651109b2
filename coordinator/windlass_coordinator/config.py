"""The coordinator's settings: one frozen tree, from a TOML file, then the environment, then arguments.

Each later source wins. A setting `lease.replace_after` is `replace_after = "5m"` under `[lease]` in the file
and `WINDLASS_COORDINATOR_LEASE_REPLACE_AFTER=5m` in the environment. Everything is checked before anything
starts, and all problems are told at once. Functions receive the part they need, not the tree.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from windlass_coordinator.auth.sealing import MASTER_KEY_FILE
from windlass_coordinator.core.disk_space import DiskPolicy
from windlass_coordinator.core.leases import LeasePolicy
from windlass_coordinator.core.overload import OverloadLimits
from windlass_coordinator.core.retention import RetentionPolicy
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.core.roles import RolePolicy
from windlass_coordinator.settings_tree import HostPort, InvalidSettings, Origin, nested, overlay, paths
from windlass_proto import failpoints
from windlass_proto.checks import SpecLimits, nearest
from windlass_proto.errors import Problem

DEFAULT_LISTEN = HostPort(host="127.0.0.1", port=7450)
DEFAULT_HTTP = HostPort(host="127.0.0.1", port=7451)

_PREFIX = "WINDLASS_COORDINATOR_"
_CONFIG_VARIABLE = _PREFIX + "CONFIG"
_ARGUMENTS = Origin(name="command line")
_ENVIRONMENT = Origin(name="environment")


class LogLevel(StrEnum):
    """Which events are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of it."""

    data: Path | None = None
    """Directory of the database, the logs and the admin token. It has no default: data must not appear by
    surprise wherever the coordinator was started."""
    store: str = ""
    """URL of a PostgreSQL database, which several coordinators may share. None given = SQLite in `data`."""
    logs: Path | None = None
    """Directory of the logs, which coordinators on one database share. None given = `logs` in `data`."""
    master_key: Path | None = None
    """File of the keys that stored secrets are sealed under; made when it is not there. None given =
    `master.key` in `data`. Coordinators on one database need the same one; backups do not hold it."""
    listen: HostPort = DEFAULT_LISTEN
    """For clients and agents (gRPC). Loopback, because there is no TLS yet."""
    http: HostPort = DEFAULT_HTTP
    """For health checks and metrics."""
    insecure_listen: bool = False
    """Allows other addresses than loopback, for networks that are trusted as a whole."""
    log_level: LogLevel = LogLevel.INFO
    lease: LeasePolicy = field(default_factory=LeasePolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    limits: SpecLimits = field(default_factory=SpecLimits)
    overload: OverloadLimits = field(default_factory=OverloadLimits)
    disk: DiskPolicy = field(default_factory=DiskPolicy)
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    role: RolePolicy = field(default_factory=RolePolicy)

    @property
    def data_directory(self) -> Path:
        """`data`, which every loaded tree has."""
        if self.data is None:
            raise ValueError("these settings were not loaded: they have no data directory")
        return self.data

    @property
    def store_url(self) -> str:
        """`store`, or where SQLite's file lies."""
        return self.store or f"sqlite:///{self.data_directory / 'windlass.db'}"

    @property
    def master_key_file(self) -> Path:
        """`master_key`, or where it lies among the data."""
        return self.master_key or self.data_directory / MASTER_KEY_FILE

    @property
    def log_directory(self) -> Path:
        """`logs`, or where they lie among the data."""
        return self.logs or self.data_directory / "logs"


def load_settings(arguments: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process; raises InvalidSettings with everything that is wrong."""
    given = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value}
    variables = os.environ if environment is None else environment
    config = given.pop("config", None) or variables.get(_CONFIG_VARIABLE)
    settings, in_file = _from_file(Settings(), Path(config)) if config else (Settings(), [])
    settings, in_environment = _from_environment(settings, variables)
    settings, in_arguments = overlay(settings, given, origin=_ARGUMENTS)
    problems = (*in_file, *in_environment, *in_arguments, *_check(settings))
    if problems:
        raise InvalidSettings(problems)
    return settings


def failpoint() -> str:
    """Where a test wants this process to die; "" = nowhere."""
    return failpoints.asked_for(os.environ)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="windlass-coordinator",
        description="Holds the queues, hands out work and records what came of it.",
        epilog="Instead of serving: windlass-coordinator backup | restore | doctor | restored",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data", metavar="DIR", help="directory of the database, the logs and the admin token"
    )
    parser.add_argument(
        "--store", metavar="URL", help="postgresql://USER@HOST/DATABASE [SQLite in the data directory]"
    )
    parser.add_argument("--logs", metavar="DIR", help="directory of the logs [logs in the data directory]")
    parser.add_argument("--listen", metavar="HOST:PORT", help=f"for clients and agents [{DEFAULT_LISTEN}]")
    parser.add_argument("--http", metavar="HOST:PORT", help=f"for health and metrics [{DEFAULT_HTTP}]")
    parser.add_argument("--config", metavar="FILE", help="settings as TOML")
    parser.add_argument(
        "--insecure-listen", action="store_true", help="allow addresses other than loopback, without TLS"
    )
    parser.add_argument("--log-level", choices=[level.value for level in LogLevel], help="[info]")
    return parser


def _from_file(tree: Settings, file: Path) -> tuple[Settings, list[Problem]]:
    try:
        given = tomllib.loads(file.read_text())
    except OSError as error:
        return tree, [Problem(path="", message=f"cannot read {file}: {error.strerror}")]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return tree, [Problem(path="", message=f"{file} is not TOML: {error}")]
    return overlay(tree, given, origin=Origin(name=str(file)))


def _from_environment(tree: Settings, variables: Mapping[str, str]) -> tuple[Settings, list[Problem]]:
    known = {_PREFIX + path.replace(".", "_").upper(): path for path in paths(tree)}
    flat: dict[str, object] = {}
    problems: list[Problem] = []
    for name, value in variables.items():
        if name in known:
            flat[known[name]] = value
        elif name.startswith(_PREFIX) and name != _CONFIG_VARIABLE:
            guess = nearest(name, known)
            hint = f": did you mean {guess}?" if guess else ""
            problems.append(Problem(path=name, message=f"is not a setting{hint} ({_ENVIRONMENT.name})"))
    tree, found = overlay(tree, nested(flat), origin=_ENVIRONMENT)
    return tree, problems + found


def _check(settings: Settings) -> list[Problem]:
    """What no single setting can tell."""
    problems: list[Problem] = []
    if settings.data is None:
        problems.append(Problem(path="data", message="say where the data are to lie: --data DIR"))
    if settings.store and not settings.store.startswith(("postgresql://", "postgres://")):
        problems.append(
            Problem(path="store", message="must be postgresql://USER@HOST/DATABASE, or not be given")
        )
    if settings.role.take_after < 2 * settings.role.beat_every:
        problems.append(
            Problem(path="role.take_after", message="must be at least twice as long as role.beat_every")
        )
    for name, address in (("listen", settings.listen), ("http", settings.http)):
        if not address.is_loopback and not settings.insecure_listen:
            problems.append(
                Problem(
                    path=name,
                    message=f"{address} can be reached from other machines and there is no TLS yet: "
                    "use 127.0.0.1, or allow it with --insecure-listen",
                )
            )
    if settings.lease.shortest_interval > settings.lease.longest_interval:
        problems.append(
            Problem(path="lease.shortest_interval", message="must not be longer than lease.longest_interval")
        )
    if settings.retry.base > settings.retry.ceiling:
        problems.append(Problem(path="retry.base", message="must not be longer than retry.ceiling"))
    return problems
