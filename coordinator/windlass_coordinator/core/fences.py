"""Fences: numbers that only grow per instance, also over a restore (protocol.md, section 1)."""

from windlass_proto.model.ids import Fence

_INCARNATION_BITS = 40


def fence_floor(incarnation: int) -> Fence:
    """Every fence issued in this incarnation is above it, and below the next one's."""
    return Fence(incarnation << _INCARNATION_BITS)
