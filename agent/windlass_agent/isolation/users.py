"""Which users are this agent's: two agents on a machine must not share any."""

import fcntl
import os
from pathlib import Path

from windlass_agent.core.isolation import UserRange

LOCKS = Path("/run/windlass/users")
AGENT_USERS = 4_096
"""Taken by one agent, where the range has as many."""


class UserClaim:
    """A part of the range, held as long as the agent lives; the next agent on its state takes the same."""

    def __init__(self, users: UserRange, lock: int) -> None:
        self.users, self._lock = users, lock

    def close(self) -> None:
        os.close(self._lock)


def claim_users(whole: UserRange, remembered: Path, *, locks: Path = LOCKS) -> UserClaim | None:
    """None = other agents have all. Commands outlive their agent, so its part is written down."""
    parts = whole.parts(AGENT_USERS)
    try:
        before = int(remembered.read_text())
    except (FileNotFoundError, ValueError):
        before = 0
    locks.mkdir(parents=True, exist_ok=True, mode=0o755)
    for part in sorted(parts, key=lambda part: part.first != before):
        lock = os.open(locks / str(part.first), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        remembered.write_text(str(part.first))
        return UserClaim(part, lock)
    return None
