"""The clock that every lease and timeout on this machine is measured with (decision D14)."""

import time


def boot_seconds() -> float:
    """Monotonic, and counts suspension."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
