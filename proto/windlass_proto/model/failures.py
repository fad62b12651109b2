"""Why an attempt failed, and which budget pays for it (protocol.md, section 2)."""

from enum import StrEnum


class FailureKind(StrEnum):
    USER_EXIT = "USER_EXIT"
    """The command ended with a code other than 0."""
    USER_SIGNAL = "USER_SIGNAL"
    """The command was ended by a signal that we did not send."""
    TIMEOUT = "TIMEOUT"
    """The command ran longer than its timeout."""
    OOM = "OOM"
    """The kernel ended the command at its memory limit."""
    USER_CONFIG = "USER_CONFIG"
    """Bad command, bad package, bad mapping or its credentials."""
    OUTPUT = "OUTPUT"
    """The outputs could not be uploaded."""
    INFRA_PREPARE = "INFRA_PREPARE"
    """The node could not prepare the attempt, or lost what it had mounted for it, through no fault of the
    user's."""
    INFRA_KEEPER_LOST = "INFRA_KEEPER_LOST"
    """The keeper ended without an exit record."""
    INFRA_KILL_STUCK = "INFRA_KILL_STUCK"
    """Processes could not be ended in time."""
    INFRA_NODE_LOST = "INFRA_NODE_LOST"
    """The node rebooted, vanished or was silent for too long."""
    PREEMPTED = "PREEMPTED"
    """The provider took the machine away."""
    POISON = "POISON"
    """The task took down several nodes."""

    @property
    def spends_user_budget(self) -> bool:
        """Whether the attempt counts against the user's `max_retries`."""
        return self in _USER_BUDGET


_USER_BUDGET = frozenset(
    {
        FailureKind.USER_EXIT,
        FailureKind.USER_SIGNAL,
        FailureKind.TIMEOUT,
        FailureKind.OOM,
        FailureKind.USER_CONFIG,
        FailureKind.OUTPUT,
    }
)
