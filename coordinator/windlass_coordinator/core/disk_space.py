"""When the disk of the data directory counts as full: decided before it is, so that results still land."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPolicy:
    """What of the disk is kept for the end of work."""

    reserve_bytes: int = 16 << 20
    """Put aside in a file beside the database, given up when the disk is full: room for some ten thousand
    results, four times the database's log."""
    spare_bytes: int = 8 << 20
    """With less than this free, new work is refused and logs wait."""


def is_short(policy: DiskPolicy, *, free_bytes: int, has_reserve: bool) -> bool:
    """Whether nothing new may be taken on."""
    return not has_reserve or free_bytes < policy.spare_bytes


def may_put_aside(policy: DiskPolicy, *, free_bytes: int) -> bool:
    """Whether there is room for the reserve again, and enough beyond it for new work."""
    return free_bytes >= policy.reserve_bytes + policy.spare_bytes
