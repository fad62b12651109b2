"""The durations of simulated runs: those of the product in the small, so that a run needs few events."""

from datetime import timedelta

from windlass_coordinator.core.leases import LeasePolicy
from windlass_coordinator.core.retry import RetryPolicy

LEASE = LeasePolicy(
    shortest_interval=timedelta(seconds=2),
    shortest_lease=timedelta(seconds=6),
    replace_after=timedelta(seconds=12),
    kill_grace=timedelta(seconds=1),
    restart_grace=timedelta(seconds=10),
    accept_deadline=timedelta(seconds=20),
    forget_after=timedelta(seconds=90),
    poll_wait=timedelta(seconds=8),
    quiet_interval=timedelta(seconds=15),
)
RETRY = RetryPolicy(
    base=timedelta(seconds=0.5),
    ceiling=timedelta(seconds=8),
    infra_limit=10,
    avoid_node_for=timedelta(seconds=4),
)

CALL_TIMEOUT_S = 4.0
RETRY_BASE_S = 0.1
RETRY_CEILING_S = 3.0
KILL_GRACE_S = 1.0
GIVE_BACK_AFTER_S = 1.0
CHORES_EVERY_S = 1.0
CHAOS_S = 60.0
HEALED_S = 400.0
"""After the last fault everything must have ended within this time, unless commands still end."""
IDLE_S = 60.0
"""Then no longer than this after the last one; the longest command takes half of it."""
WORKED_OFF_S = 2_000.0
"""And in no case later."""
