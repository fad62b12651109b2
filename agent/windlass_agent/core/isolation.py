"""Which isolation an attempt gets, and as which user it runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any  # what a keeper gets is JSON

from windlass_proto.model.specs import Isolation

HOME = "/tmp"
"""Of isolated commands: their own, empty at their start."""
USER = "windlass"
"""What they find in USER and LOGNAME; their user has no name in the system's list."""
USERS_OF_SLOT = 16
"""One after another, so that what an attempt may have left somewhere is not its successor's."""
_ORDER = (Isolation.DEV, Isolation.STANDARD, Isolation.STRICT)
_RANGE = re.compile(r"(\d{1,10})-(\d{1,10})")
_LOWEST, _HIGHEST = 1_000, (1 << 32) - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRange:
    """User ids, and group ids of the same numbers, that belong to nobody else on the machine."""

    first: int
    count: int

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    def parts(self, size: int) -> tuple["UserRange", ...]:
        """As many whole ones as there are; the range itself when it is smaller than one."""
        if self.count <= size:
            return (self,)
        starts = range(self.first, self.last + 2 - size, size)
        return tuple(UserRange(first=start, count=size) for start in starts)

    def of_slot(self, number: int, *, slots: int) -> tuple[int, int]:
        """First and count; never the same user in two slots."""
        each = max(1, min(USERS_OF_SLOT, self.count // max(1, slots)))
        return self.first + number * each, each


def parse_user_range(text: str) -> UserRange:
    """`900000000-901048575`. Raises ValueError."""
    found = _RANGE.fullmatch(text)
    if not found:
        raise ValueError("must be two user ids with a dash between, such as 900000000-901048575")
    first, last = int(found[1]), int(found[2])
    if not _LOWEST <= first <= last <= _HIGHEST:
        raise ValueError(f"must go upwards, from {_LOWEST} at least to {_HIGHEST} at most")
    return UserRange(first=first, count=last - first + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIsolation:
    """What this node gives every command, and what it could give beyond that."""

    profile: Isolation = Isolation.DEV
    lacks: Mapping[Isolation, str] = field(default_factory=dict)
    """Why a profile cannot be had here."""
    users: UserRange = UserRange(first=_LOWEST, count=1)
    slots: int = 1
    container_group: int = 0
    """Of commands in containers: what has it is kept from the metadata service; 0 = nothing is."""

    def of(self, asked: Isolation | None) -> Isolation:
        """Tasks may ask for more than the node gives anyway, not for less."""
        return max(self.profile, asked or Isolation.DEV, key=_ORDER.index)

    def users_of(self, slot: int) -> tuple[int, int]:
        return self.users.of_slot(slot, slots=self.slots)


def sandbox_plan(
    profile: Isolation, *, binds: Sequence[tuple[str, str]] = (), temporary: str | None = None
) -> Mapping[str, Any] | None:
    """As keepers read it; None = as the agent's own user. Without `temporary` the slot has one."""
    if profile is Isolation.DEV:
        return None
    return {"profile": str(profile), "binds": [list(pair) for pair in binds], "tmp": temporary}
