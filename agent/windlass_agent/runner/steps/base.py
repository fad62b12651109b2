"""What all steps share: what they work on and how they fail."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event

from windlass_agent.containers.base import Image
from windlass_agent.core.mount_plan import MountPlan
from windlass_agent.core.output_gate import OutputGate
from windlass_agent.mounts.base import (
    BadMapping,
    InputMounter,
    StorageOpener,
    StorageUnavailable,
    TransferCancelled,
)
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, JobId
from windlass_proto.model.secrets import Login
from windlass_proto.model.specs import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailure:
    """Why the attempt cannot go on."""

    kind: FailureKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """Limits that the node sets."""

    package_limit_bytes: int
    package_limit_entries: int
    package_limit_ratio: int
    package_timeout: timedelta
    mount_timeout: timedelta
    upload_timeout: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFolders:
    """Where an attempt keeps what it works on; all below its own directory."""

    root: Path

    @property
    def work(self) -> Path:
        """The command's working directory."""
        return self.root / "work"

    @property
    def temporary(self) -> Path:
        """The command's TMPDIR."""
        return self.root / "tmp"

    @property
    def mounts(self) -> Path:
        """Directories that appear under absolute paths."""
        return self.root / "mounts"

    @property
    def package(self) -> Path:
        """The archive, until it is unpacked."""
        return self.root / "package"


@dataclass(slots=True, kw_only=True)
class StepContext:
    """One attempt on its way through the steps."""

    ref: AttemptRef
    job_id: JobId
    spec: TaskSpec
    folders: AttemptFolders
    storages: StorageOpener
    mounter: InputMounter
    gate: OutputGate
    settings: StepSettings
    mounts: MountPlan
    gpus: tuple[str, ...] = ()
    """Of the node's, by name."""
    image: Image | None = None
    """Of a task that runs in a container: what its image was found to be."""
    owner: int = 0
    """User (and group) that the command runs as, and that its directories are given to; 0 = the agent's."""
    logins: dict[str, Login] = field(default_factory=dict, repr=False)
    """Stored logins that the task names, by their names."""
    cancelled: Event = field(default_factory=Event)
    """Set when the attempt has to stop; steps look at it between files."""
    has_failed: bool = False
    """Its command has: its results are uploaded, and nobody waits long for that."""
    trouble: str = ""
    """What a step tries again for; told when its time is over."""
    note: str = ""
    """Of the upload: what is worth knowing and no failure."""


def transfer(action: Callable[[], None], *, unavailable: FailureKind) -> StepFailure | None:
    """Runs a transfer (in a thread) and names whose fault its failure is."""
    try:
        action()
    except (BadMapping, TransferCancelled) as problem:
        return StepFailure(kind=FailureKind.USER_CONFIG, reason=str(problem))
    except StorageUnavailable as problem:
        return StepFailure(kind=unavailable, reason=str(problem))
    return None
