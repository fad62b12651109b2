"""Where a slot's commands run when their plan names no place: an empty directory for each of them."""

import os
import time


class WorkPlace:
    """Of one slot; `work` and `temporary` change their names when a command left one that cannot be moved."""

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self.work = f"{slot}/work"
        self.temporary = f"{slot}/tmp"
        try:
            os.mkdir(f"{slot}/trash", 0o700)
        except FileExistsError:
            pass  # Of an earlier keeper.

    def empty(self) -> None:
        """What a command left behind goes aside in one step; the agent removes it when there is time."""
        if not self._set_aside(self.work):
            self.work = f"{self._slot}/work-{time.time_ns()}"
        if not os.path.isdir(self.work):
            os.mkdir(self.work, 0o700)
        if os.path.isdir(self.temporary) and not self._set_aside(self.temporary):
            self.temporary = f"{self._slot}/tmp-{time.time_ns()}"

    def _set_aside(self, directory: str) -> bool:
        """False: it was made immutable, or something is mounted there; it stays, and is not used again."""
        try:
            if self._is_own(directory) and not os.listdir(directory):
                return True
        except FileNotFoundError:
            return True
        try:
            os.rename(directory, f"{self._slot}/trash/{time.time_ns()}")
        except OSError:
            return False
        return True

    def _is_own(self, directory: str) -> bool:
        """Not one that an isolated command had: its user may be another's again."""
        return os.stat(directory).st_uid == os.getuid()
