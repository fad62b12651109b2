"""What can be set: each setting with its unit, its default and the reason for it, and what it may be.

Where values come from (file, environment, arguments) is in `config.py`. Functions receive the part they need,
not the tree.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from windlass_agent.core.isolation import parse_user_range
from windlass_agent.mounts import InputWay
from windlass_agent.node.disks import DataDisk
from windlass_proto.checks.limits import DEFAULT_LIMITS
from windlass_proto.checks.mappings import check_mappings
from windlass_proto.checks.words import Findings
from windlass_proto.endpoints import check_endpoints
from windlass_proto.model.environment import DEFAULT_PATH
from windlass_proto.model.ids import TaskName
from windlass_proto.model.specs import Argv, InputMapping, TaskSpec

_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def parse_duration(value: object) -> timedelta:
    """`500ms`, `30s`, `5m`, or a number of seconds; pydantic would read texts as ISO durations."""
    text = "" if isinstance(value, bool) else str(value)
    found = _DURATION.fullmatch(text)
    try:
        if found:
            return timedelta(seconds=float(found[1]) * _UNITS_S[found[2]])
    except OverflowError:
        pass  # Nobody waits so long: no duration either.
    raise ValueError("must be a duration such as 500ms, 30s, 5m, or a number of seconds")


def _above_zero(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than 0s")
    return value


def _a_second_at_most(value: timedelta) -> timedelta:
    if not timedelta(0) <= value <= timedelta(seconds=1):
        raise ValueError("must be between 0s and 1s")
    return value


def _ten_seconds_at_least(value: timedelta) -> timedelta:
    if value < timedelta(seconds=10):
        raise ValueError("must be at least 10s")
    return value


def _split(value: object) -> object:
    """Words with commas between, as variables have them."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _from_json(value: object) -> object:
    """Tables, as a variable has them."""
    return json.loads(value or "[]") if isinstance(value, str) else value


def _user_range(value: str) -> str:
    parse_user_range(value)
    return value


def _each_disk_once(disks: tuple[DataDisk, ...]) -> tuple[DataDisk, ...]:
    for names in ([disk.device for disk in disks], [os.path.normpath(disk.mount_point) for disk in disks]):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"must each be named once: {twice} is named twice")
    return disks


_Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
_GPU_NAME = re.compile(r"\d+|(GPU|MIG)-[0-9A-Za-z/-]+")
_GPUS_MOST = 1024


def _parse_gpus(value: object) -> object:
    """How many, or which; a text with a comma or a UUID in it is a list."""
    if isinstance(value, str):
        names = [word.strip() for word in value.split(",") if word.strip()]
        value = int(value) if value.strip().isdigit() else names
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _GPUS_MOST:
        return tuple(map(str, range(value)))
    if not isinstance(value, list | tuple):
        raise ValueError("must be a number of GPUs, or a list of indexes or UUIDs")
    named = [str(name) for name in value]
    wrong = next((name for name in named if not _GPU_NAME.fullmatch(name)), None)
    if wrong is not None:
        raise ValueError(f"must name GPUs by index or UUID such as GPU-1b2c or MIG-3d4e (there is {wrong!r})")
    if len(set(named)) < len(named):
        raise ValueError("must name each GPU once")
    return tuple(named)


_Gpus = Annotated[tuple[str, ...], BeforeValidator(_parse_gpus)]
_Positive = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_above_zero)]
_OrNone = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_a_second_at_most)]
_Keepalive = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_ten_seconds_at_least)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """How the agent talks to the coordinator."""

    poll_wait: _Positive = timedelta(seconds=30)
    """Longest time a poll is parked, unless the coordinator says less: proxies cut silent calls at 60 s."""
    call_timeout: _Positive = timedelta(seconds=10)
    """Deadline of a call that is not parked: far above any healthy answer, far below the lease."""
    report_coalesce: _Positive = timedelta(milliseconds=50)
    """Reports wait this long for company while there is work; small batches are dear for the coordinator."""
    report_most: Annotated[int, Field(ge=1, le=10_000)] = 2_000
    """Attempts in one report; keeps the message far below its limit of 4 MiB."""
    retry_base: _Positive = timedelta(milliseconds=100)
    """Upper bound of the first pause after a failed call."""
    retry_ceiling: _Positive = timedelta(seconds=5)
    """Upper bound of every pause: a restarted coordinator is found within this time."""
    log_window_bytes: Annotated[int, Field(ge=1 << 20)] = 8 << 20
    """Log bytes sent and not yet acknowledged; bounds the memory that log shipping takes."""
    keepalive: _Keepalive = timedelta(seconds=20)
    """A quiet connection is asked this often whether it lives; coordinators end one that asks more often
    than every 10 s."""
    keepalive_timeout: _Positive = timedelta(seconds=10)
    """Without an answer for this long it is given up and made anew, as when something was sent."""
    log_chunk_bytes: Annotated[int, Field(ge=1 << 12, le=3 << 20)] = 1 << 20
    """Log bytes in one message: above 256 KiB the rate hardly grows, above 4 MiB a message is refused."""

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSettings:
    """How the agent runs what it is given."""

    prefetch: _OrNone = timedelta(milliseconds=60)
    """Work taken in advance lasts about this long; hides a round trip and a commit. 0 = none."""
    prefetch_most: Annotated[int, Field(ge=0, le=4096)] = 512
    """Attempts taken in advance at most; a batch of 512 is as cheap per attempt as it gets."""
    keeper_ahead: _OrNone = timedelta(milliseconds=30)
    """Work queued in one keeper; hides a wake-up of the agent between two short commands."""
    keeper_most: Annotated[int, Field(ge=1, le=1024)] = 64
    """Plans in one keeper at most."""
    give_back_after: _Positive = timedelta(seconds=1)
    """Prefetched work that could not start for this long is given back, so that another node gets it."""
    kill_grace: _Positive = timedelta(seconds=10)
    """Between SIGTERM and SIGKILL: time for a command to tidy up."""
    package_limit_bytes: Annotated[int, Field(ge=1)] = 8 << 30
    """A package may unpack to this much; protects the node's disk from archive bombs."""
    package_limit_entries: Annotated[int, Field(ge=1)] = 200_000
    """A package may hold this many files; protects the node's inodes."""
    package_limit_ratio: Annotated[int, Field(ge=1)] = 250
    """A package may unpack to this many times its size, once that is more than 256 MiB: bombs end early."""
    package_cache_bytes: Annotated[int, Field(ge=0)] = 2 << 30
    """Packages kept for further attempts, in a tenth of the file system at most. 0 = none."""
    pids_max: Annotated[int, Field(ge=0, le=4_194_304)] = 8192
    """Processes and threads of one attempt at once: more than a machine's cores need, and a fork bomb is
    held before it takes the machine. 0 = any number."""
    isolation: Literal["auto", "dev", "standard", "strict"] = "auto"
    """What commands are kept from; `auto` = standard where the machine can, else dev. Tasks may ask for
    more."""
    uid_range: Annotated[str, AfterValidator(_user_range)] = "900000000-901048575"
    """Users of isolated commands, as nobody else on the machine has them; an agent takes 4,096."""
    metadata: Literal["blocked", "allowed"] = "blocked"
    """Whether isolated commands reach the cloud's metadata service, which gives away the node's own
    credentials."""
    cpu_limits: Literal["shares", "quota"] = "shares"
    """What a claim of cores is: a share when they are short, or also the most that is had."""
    inputs: InputWay = InputWay.AUTO
    """How inputs come to commands: `mount`, `copy`, or `auto`, which copies where nothing can be mounted."""
    mount_cache_bytes: Annotated[int, Field(ge=1 << 26)] = 16 << 30
    """What an attempt has read of its mounts stays on the disk up to this; read again it is not fetched."""
    mount_survey: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """Objects of an input that are looked at before it is mounted: commands can make files of their own in
    the directories seen by then. A thousand cost one call to the store."""
    container_engine: Literal["auto", "docker", "podman", "none"] = "auto"
    """What runs tasks in containers; `auto`: docker where its daemon answers, else podman."""
    container_socket: str = ""
    """Path of docker's socket; "" = where its client looks."""
    container_options: str = ""
    """Options for the engine's program, before everything else; as a shell would split them."""
    transfer_threads: Annotated[int, Field(ge=1, le=64)] = 4
    """Objects copied at once per attempt; more hardly helps one machine."""
    package_timeout: _Positive = timedelta(hours=1)
    """To fetch and unpack a package, unless the task says otherwise."""
    mount_timeout: _Positive = timedelta(hours=1)
    """To make a task's inputs available, unless it says otherwise; they are copied down, so not minutes."""
    upload_timeout: _Positive = timedelta(hours=6)
    """To upload what a command left behind, unless the task says otherwise; work is lost when it ends."""

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """How much output may lie on the node until the coordinator has it."""

    per_attempt_bytes: Annotated[int, Field(ge=32 << 20)] = 256 << 20
    """Of one attempt; less than two segments a stream (32 MiB) could not be worked off piece by piece."""
    per_node_bytes: Annotated[int, Field(ge=0)] = 0
    """Of all attempts together; 0 = a tenth of the file system, 8 GiB at most."""
    ended_most: Annotated[int, Field(ge=1)] = 50_000
    """Ended attempts that wait here for the coordinator; beyond that no more work is taken."""

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSettings:
    """When the state directory's file system counts as full: no more work is taken then."""

    reserve_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """Free space below which no work is taken; a twentieth of the file system where that is less."""
    reserve_inodes: Annotated[int, Field(ge=0)] = 10_000
    """The same for files; a twentieth of all where that is less."""

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableSettings:
    """What commands find in their environment."""

    path: str = DEFAULT_PATH
    """PATH when the job sets none."""
    lang: str = "C.UTF-8"
    """Exists on every system and is UTF-8."""
    tmpdir: str = "/tmp"
    """TMPDIR of commands without a work directory of their own."""
    region: str = ""
    """BATCH_COMPUTE_REGION: a vendor's name of the region, "" outside a cloud."""
    oss_host: str = ""
    """BATCH_COMPUTE_OSS_HOST: host name of the object store, without a scheme."""
    worker_id: str = ""
    """BATCH_COMPUTE_WORKER_ID; "" = the node's id."""

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Network file systems that tasks may mount."""

    hosts: _Words = ()
    """NFS servers, as names or patterns such as `*.nas.example.com`; none unless told: a server trusts the
    node, whoever's task asks."""
    options: str = ""
    """Mount options for all of them, before those of the task."""
    timeout: _Positive = timedelta(minutes=2)
    """For one mount."""

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """The node's own directories (file://)."""

    directories: _Words = ()
    """Those that tasks may see, with all below; none unless told."""

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMount:
    """Mounted for every task that has no inputs of its own."""

    source: str
    """URL of a directory, as in a job."""
    destination: str
    """Where commands see it."""
    writable: bool = False
    """Network file systems only."""
    options: str = ""
    """Mount options of a network file system."""

    __pydantic_config__ = _STRICT


def inputs_of(mounts: Iterable[NodeMount]) -> tuple[InputMapping, ...]:
    """As if a task had asked for them."""
    return tuple(
        InputMapping(
            source=one.source, destination=one.destination, writable=one.writable, options=one.options
        )
        for one in mounts
    )


def _as_a_task_may(mounts: tuple[NodeMount, ...]) -> tuple[NodeMount, ...]:
    task = TaskSpec(name=TaskName("mounts"), command=Argv(args=("true",)), inputs=inputs_of(mounts))
    findings = Findings()
    check_mappings(findings, "", task, limits=replace(DEFAULT_LIMITS, local_files=True))
    if findings.problems:
        raise ValueError("; ".join(str(one).removeprefix(".inputs") for one in findings.problems))
    return mounts


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    state: Path
    """Everything the agent must remember; one agent per directory."""
    coordinator: Annotated[str, AfterValidator(check_endpoints)]
    """HOST:PORT of the agent protocol; several with commas between, of which the first that answers is
    used."""
    join_token: str = field(default="", repr=False)
    """Needed once, to join."""
    join_token_file: Path | None = None
    """File that holds it, so that it is in no process list."""
    name: str = ""
    """How people know the node; "" = its host name."""
    slots: Annotated[int, Field(ge=1, le=4096)] = 1
    """Attempts at once; 1 as in the services whose jobs run here: a command has the machine for itself."""
    gpus: _Gpus | None = None
    """What commands may be given: a number (the first ones), or a list of indexes or UUIDs; not given = all
    that NVML finds. Commands see none but those they were given."""
    storage: Path | None = None
    """TOML file that says which server oss://, cos:// and s3:// mean."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    exit_kills: bool = False
    """Whether SIGTERM also ends keepers and commands; for agents that live as long as their parent."""
    mounts: Annotated[tuple[NodeMount, ...], BeforeValidator(_from_json), AfterValidator(_as_a_task_may)] = ()
    """What the node mounts for tasks without inputs; a task's own inputs replace all of it."""
    disks: Annotated[tuple[DataDisk, ...], BeforeValidator(_from_json), AfterValidator(_each_disk_once)] = ()
    """Formatted if they are blank, and mounted, before anything else."""
    network: NetworkSettings = NetworkSettings()
    local: LocalSettings = LocalSettings()
    link: LinkSettings = LinkSettings()
    work: WorkSettings = WorkSettings()
    spool: SpoolSettings = SpoolSettings()
    disk: DiskSettings = DiskSettings()
    variables: VariableSettings = VariableSettings()

    __pydantic_config__ = _STRICT
