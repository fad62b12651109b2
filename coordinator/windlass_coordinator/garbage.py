"""When the whole memory is looked through for objects that only refer to each other.

Python does so whenever those that have lived a while have become a quarter more, and all threads stand still
meanwhile: for 0.4 s with the objects of 6,000 connected agents, to find next to nothing, as counting
references frees nearly all. Here it happens seldom, and the more seldom the longer it takes.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_YOUNG, _MIDDLE, _NEVER = 2_000, 10, 1_000_000
"""New objects until the youngest are looked through; such rounds until those that outlived one are."""
_CHECK_EVERY_S = 10.0
_SHORTEST_PAUSE_S = 60.0
_SHARE_OF_TIME = 0.001
_MOST_UNSEEN = 100 * _MIDDLE * _YOUNG
"""Objects that came to stay since the last look; some 300 MB were all of them garbage."""
_SHARE_AT_MOST = 0.05


def is_due(*, since_s: float, last_took_s: float, unseen: int) -> bool:
    """Whether to look again, so long after the last time and with so many objects that came to stay since."""
    share = _SHARE_AT_MOST if unseen >= _MOST_UNSEEN else _SHARE_OF_TIME
    shortest_s = _CHECK_EVERY_S if unseen >= _MOST_UNSEEN else _SHORTEST_PAUSE_S
    return since_s >= max(shortest_s, last_took_s / share)


@asynccontextmanager
async def collected_seldom() -> AsyncIterator[None]:
    """For a process as a whole, once it has started: what is there now is never looked at again."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
    collecting = asyncio.create_task(_collect())
    try:
        yield
    finally:
        collecting.cancel()
        gc.set_threshold(*before)
        gc.unfreeze()


async def _collect() -> None:
    looked_s, took_s = time.monotonic(), 0.0
    while True:
        await asyncio.sleep(_CHECK_EVERY_S)
        begun_s = time.monotonic()
        unseen = gc.get_count()[2] * _MIDDLE * _YOUNG
        if is_due(since_s=begun_s - looked_s, last_took_s=took_s, unseen=unseen):
            gc.collect()
            looked_s = time.monotonic()
            took_s = looked_s - begun_s
