"""States of jobs, tasks, instances, attempts, nodes and log streams (protocol.md, sections 2-4)."""

from enum import StrEnum


class JobState(StrEnum):
    WAITING = "WAITING"
    """Nothing of it has started."""
    RUNNING = "RUNNING"
    """At least one instance has been claimed."""
    STOPPING = "STOPPING"
    """It will end as STOPPED or FAILED when no attempt is live any more."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL_JOB


class TaskState(StrEnum):
    WAITING = "WAITING"
    """A task it comes after has not succeeded yet."""
    READY = "READY"
    """Its instances may be claimed."""
    RUNNING = "RUNNING"
    """At least one instance has been claimed."""
    STOPPING = "STOPPING"
    """No more claims; it ends when no attempt is live any more."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    SKIPPED = "SKIPPED"
    """A task it comes after failed, was stopped or skipped."""

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL_TASK


class InstanceState(StrEnum):
    WAITING = "WAITING"
    """Its task is blocked; such an instance has no record."""
    READY = "READY"
    ACTIVE = "ACTIVE"
    """It has one live attempt."""
    RETRY_WAIT = "RETRY_WAIT"
    """It becomes READY when its back-off is over."""
    STOPPING = "STOPPING"
    """Its live attempt has been asked to stop."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL_INSTANCE


class AttemptState(StrEnum):
    LEASED = "LEASED"
    """A node has it; nothing of it has started as far as we know."""
    PREPARING = "PREPARING"
    """The node fetches what the command needs."""
    RUNNING = "RUNNING"
    FINALIZING = "FINALIZING"
    """The command has succeeded, its outputs are on their way."""
    STOPPING = "STOPPING"
    """It has been asked to stop."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    LOST = "LOST"
    """It ended without a result that can be trusted."""
    RELEASED = "RELEASED"
    """It was given back before anything of it started."""

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL_ATTEMPT


class NodeState(StrEnum):
    JOINING = "JOINING"
    """Joined, no session yet."""
    READY = "READY"
    DRAINING = "DRAINING"
    """Finishes what it has, takes nothing new."""
    DRAINED = "DRAINED"
    SILENT = "SILENT"
    """Its lease has expired; its attempts are detached."""
    GONE = "GONE"
    """Confirmed dead, left, or silent for too long."""
    QUARANTINED = "QUARANTINED"
    DELETED = "DELETED"


class LogStream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class LogState(StrEnum):
    STREAMING = "STREAMING"
    """More may come."""
    COMPLETE = "COMPLETE"
    """Every byte the command wrote is stored."""
    PARTIAL = "PARTIAL"
    """Bytes are missing and will never come."""


class AttemptPhase(StrEnum):
    """Where an attempt stands on its node, as its own records tell."""

    ASSIGNED = "ASSIGNED"
    """The intent is written, nothing of it has started."""
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    ENDED = "ENDED"
    """An exit record exists; outputs may still be on their way."""


_TERMINAL_JOB = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED})
_TERMINAL_TASK = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.STOPPED, TaskState.SKIPPED})
_TERMINAL_INSTANCE = frozenset({InstanceState.SUCCEEDED, InstanceState.FAILED, InstanceState.STOPPED})
_TERMINAL_ATTEMPT = frozenset(
    {
        AttemptState.SUCCEEDED,
        AttemptState.FAILED,
        AttemptState.STOPPED,
        AttemptState.LOST,
        AttemptState.RELEASED,
    }
)
