"""In which order calls come to the database, and which of them are refused first when there are too many.

The one who knows what is being served (the guard of all calls) sets the lane; what the coordinator does by
itself is vital.
"""

from contextvars import ContextVar
from enum import StrEnum


class Lane(StrEnum):
    """From the most to the least urgent."""

    VITAL = "vital"
    """Heartbeats, results, sessions, polls, the coordinator's own duties: never refused for others' load."""
    STEER = "steer"
    """What users stop, delete or drain: it makes nothing grow."""
    CHANGE = "change"
    """Submits and what else is new: refused while the disk is nearly full."""
    LOOK = "look"
    """Get, list, watch."""
    LOG = "log"
    """Whose logs may be appended."""


current_lane: ContextVar[Lane] = ContextVar("windlass_lane", default=Lane.VITAL)
"""Of the call that is being served."""
