"""When the disk counts as full: early enough that what the node has already can be carried to its end."""

from dataclasses import dataclass

SMALL_DISK_SHARE = 0.05
"""On a small file system a reserve is at most this share of it."""
SPACE_IS_BACK = 1.25
"""Work is taken again when this many reserves are free, so that it does not come and go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpace:
    """Of one file system."""

    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int
    """0 = it makes them as they are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFloor:
    """What is to stay free."""

    size_bytes: int
    inodes: int

    def shortage(self, space: DiskSpace, *, was_short: bool) -> str:
        """What there is too little of, in words; "" = there is enough."""
        factor = SPACE_IS_BACK if was_short else 1.0
        needed_bytes = factor * min(self.size_bytes, SMALL_DISK_SHARE * space.total_bytes)
        if space.free_bytes < needed_bytes:
            return f"{_mebi(space.free_bytes)} MiB of disk are free, {_mebi(needed_bytes)} MiB are to stay"
        needed_inodes = factor * min(self.inodes, SMALL_DISK_SHARE * space.total_inodes)
        if space.free_inodes < needed_inodes:
            return f"{space.free_inodes} inodes are free, {needed_inodes:.0f} are to stay"
        return ""


def _mebi(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 20):.1f}"
