"""Whether the node takes more work, and if not, why: several causes may hold at once."""

from enum import StrEnum


class Obstacle(StrEnum):
    """What keeps a node from taking work, the most telling first."""

    LEAVING = "leaving"
    """It is to end, or somebody drains it."""
    STATE = "state"
    """The state directory could not be written: what is taken must be written down first."""
    DATA_DISK = "data_disk"
    """A data disk is not mounted, or is not what the settings say."""
    DISK = "disk"
    """Its disk is nearly full."""
    BACKLOG = "backlog"
    """Too much that has ended waits for the coordinator."""


class Intake:
    def __init__(self) -> None:
        self._why: dict[Obstacle, str] = {}

    @property
    def is_open(self) -> bool:
        return not self._why

    @property
    def why_closed(self) -> str:
        """ "" while it is open."""
        return next((self._why[one] for one in Obstacle if one in self._why), "")

    def is_hindered_by(self, obstacle: Obstacle) -> bool:
        return obstacle in self._why

    def close(self, obstacle: Obstacle, why: str) -> bool:
        """Whether the obstacle is a new one. What was said first is said as long as it lasts."""
        if obstacle in self._why:
            return False
        self._why[obstacle] = why
        return True

    def clear(self, obstacle: Obstacle) -> bool:
        """Whether there was that obstacle."""
        return self._why.pop(obstacle, None) is not None
