"""When the node's lease ends, seen from the node (protocol.md, sections 6 and 7).

The agent counts from the moment it sent the heartbeat that was acknowledged later; the coordinator counts
from the moment it processed it. Sent <= processed, so the agent's view always expires first. All times
are seconds of the boot clock, passed in.
"""

from dataclasses import dataclass, replace

_JITTER = 0.2
"""Heartbeats of many nodes drift apart by this share of the interval, up or down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseClock:
    interval_s: float
    """From one heartbeat to the next."""
    lease_s: float
    """The lease lasts this long from the sending of an acknowledged heartbeat."""
    renewed_at_s: float
    """When the newest acknowledged heartbeat (or OpenSession) was sent."""

    def acknowledged(self, *, sent_at_s: float, interval_s: float, lease_s: float) -> "LeaseClock":
        """After a reply to what was sent at `sent_at_s`; an older one that arrives late changes nothing."""
        if sent_at_s < self.renewed_at_s:
            return self
        return replace(self, interval_s=interval_s, lease_s=lease_s, renewed_at_s=sent_at_s)

    def expires_at_s(self) -> float:
        return self.renewed_at_s + self.lease_s

    def is_expired(self, now_s: float) -> bool:
        return now_s >= self.expires_at_s()

    def pause_s(self, *, jitter: float) -> float:
        """Until the next heartbeat; `jitter` is random in [0, 1)."""
        return self.interval_s * (1 - _JITTER + 2 * _JITTER * jitter)

    def call_deadline_s(self) -> float:
        """How long one heartbeat may take: a third of the lease leaves room for two more tries."""
        return max(self.lease_s / 3, 1.0)
