"""How large a job may be. Each limit has a name; the coordinator's settings may set others."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecLimits:
    name_length: int = 60
    """Of jobs, tasks and clusters, in characters: names stand in tables and in object names."""
    description_bytes: int = 4096
    tasks: int = 10_000
    """Per job."""
    dependencies: int = 100_000
    """Per job, over the `after` of all its tasks."""
    instances: int = 10_000_000
    """Per task."""
    retries: int = 1000
    priority: int = 1_000_000
    """Largest, and with a minus smallest."""
    timeout_min: timedelta = timedelta(seconds=1)
    timeout_max: timedelta = timedelta(days=365)
    run_for_max: timedelta = timedelta(days=30)
    """After the node's lease has expired."""
    slots: int = 4096
    cpu: float = 4096
    memory_bytes: int = 1 << 50
    gpus: int = 1024
    pids: int = 4_194_304
    """The most that Linux can count."""
    open_files: int = 1_048_576
    """The most that Linux allows a process unless told otherwise."""
    command_bytes: int = 100_000
    """Over all arguments; Linux starts nothing with a single one above 128 KiB."""
    arguments: int = 10_000
    env_entries: int = 1000
    env_bytes: int = 100_000
    """Names and values of one task."""
    mappings: int = 100
    """Inputs, and again outputs, of one task."""
    url_bytes: int = 2048
    path_bytes: int = 1023
    """Of a directory on the node."""
    local_files: bool = False
    """Whether `file://` may be mapped: a directory of the node itself, so for machines of one's own only."""
    log_bytes_per_attempt: int = 10 << 30
    """Stored of an attempt's stdout and stderr together; what is beyond is a gap."""
    spec_bytes: int = 3_000_000
    """All texts of a job together; a message of 4 MiB must hold it."""


DEFAULT_LIMITS = SpecLimits()
