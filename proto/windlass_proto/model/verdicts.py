"""What the coordinator answers to what an agent says; every answer is final (protocol.md, section 7)."""

from enum import StrEnum


class EventVerdict(StrEnum):
    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    """The same thing was recorded before."""
    SUPERSEDED = "SUPERSEDED"
    """The attempt's fence is old; nothing was changed."""
    CONFLICT = "CONFLICT"
    """The attempt is terminal with another result; nothing was changed."""
    UNKNOWN = "UNKNOWN"
    """There is no such attempt of this node."""


class InventoryVerdict(StrEnum):
    KEEP = "KEEP"
    """Go on with it."""
    REPORT = "REPORT"
    """Send its events again."""
    KILL = "KILL"
    """It is fenced: end its processes, then delete it."""
    FORGET = "FORGET"
    """Everything of it is known: delete it."""
