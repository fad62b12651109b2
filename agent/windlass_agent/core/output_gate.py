"""What an attempt asks before it writes where others see it, and what it is told."""

from dataclasses import dataclass
from typing import Protocol

from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import AttemptRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Outputs that an attempt wants to publish."""

    ref: AttemptRef
    manifest_digest: str
    files: int
    size_bytes: int
    of_failed_command: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Whether it may."""

    granted: bool
    reason: str = ""
    supersedes: bool = False
    """An earlier attempt of the instance may have published something, which gives way."""


class LeaseOver(WindlassError):
    """The node may not act for its attempts now: others may have them."""


class OutputGate(Protocol):
    """Who says what may be written where others see it."""

    async def held(self) -> None:
        """Returns when the node's lease holds."""

    def check(self) -> None:
        """Raises LeaseOver; asked before every request, from any thread."""

    async def commit(self, wish: Wish) -> Grant:
        """The coordinator's answer, however long it takes to get one."""
