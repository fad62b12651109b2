"""How one of several coordinators holds a role (protocol.md, section 1: term)."""

from dataclasses import dataclass
from datetime import timedelta

from windlass_coordinator.core.records import RoleSight


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePolicy:
    """All durations are on each coordinator's own monotonic clock."""

    beat_every: timedelta = timedelta(seconds=2)
    """How often the holder shows that it lives, and the others look."""
    take_after: timedelta = timedelta(seconds=10)
    """A holder whose beat has stood still for so long is replaced."""


@dataclass(slots=True)
class RoleWatch:
    """How long this coordinator has itself seen a role's beat stand still; nobody's time of day counts."""

    policy: RolePolicy
    sight: RoleSight | None = None
    still_for: timedelta = timedelta(0)

    def look(self, sight: RoleSight | None, *, since_last: timedelta) -> bool:
        """Whether the role may be taken now. Time in which this process stood still is not watching."""
        if sight is None or not sight.holder:
            return True
        if sight != self.sight:
            self.sight, self.still_for = sight, timedelta(0)
        else:
            self.still_for += min(since_last, 2 * self.policy.beat_every)
        return self.still_for >= self.policy.take_after
