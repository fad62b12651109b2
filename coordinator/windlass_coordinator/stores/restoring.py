"""What a store must do to go on from a backup; a part of `base.Transaction`."""

from datetime import datetime
from typing import Protocol


class RestoreRecords(Protocol):
    """The step from a backup to a store that serves (decision 0008)."""

    def begin_incarnation(self, incarnation: int, *, now: datetime) -> None:
        """From here on this is another life of the store than the one that went on after the backup.

        Every number that both could issue is raised above the other's: fences, epochs, and the keys of jobs,
        tasks and facts. Nodes come back with whatever nonce they have, once each; join tokens are void, as
        some may have been used since. A store that is open does not know it: close it, and open it again.
        """

    def count_jobs(self) -> int:
        """Jobs that users see."""
