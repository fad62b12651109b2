"""How many examples a model test tries: a few in `make check`, as many as wanted in `make models`.

The few are always the same ones, so that a change which breaks nothing is never refused by chance; a longer
run looks elsewhere each time, and prints what it takes to see a failure again.
"""

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("WINDLASS_MODEL_FACTOR", "1"))
"""How many times the usual number of examples."""


def examples(usually: int, *, steps: int = 50) -> settings:
    """Settings for one test; `steps` is how long the histories of a state machine get."""
    return settings(
        max_examples=usually * FACTOR,
        stateful_step_count=steps,
        deadline=None,
        derandomize=FACTOR == 1,
        print_blob=True,
        # Examples of whole messages are large, and a slow machine is no failure.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
