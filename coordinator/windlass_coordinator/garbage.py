"""When the whole memory is looked through for objects that only refer to each other.

Python does so whenever those that have lived a while have become a quarter more, and all threads stand still
meanwhile: for 0.4 s with the objects of 6,000 connected agents, to find next to nothing, as counting
references frees nearly all. Here it happens seldom, and the more seldom the longer it takes.

The youngest objects are looked through often, and few at a time: the gRPC library leaves a small cycle with
every call, and along with those the objects of all polls that came meanwhile are looked through.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_YOUNG, _MIDDLE, _NEVER = 100, 5, 1_000_000
"""New objects, less those that were freed, until the youngest are looked through; such rounds until those
that outlived one are. With 2,000 and 10 and a few thousand agents the latter took a tenth of a second."""
_CHECK_EVERY_S = 10.0
_SHORTEST_PAUSE_S = 60.0
_SHARE_OF_TIME = 0.001
_MOST_UNSEEN = 2_000_000
"""Objects that came to stay since the last look; some 300 MB were all of them garbage."""
_SHARE_AT_MOST = 0.05


def is_due(*, since_s: float, last_took_s: float, unseen: int) -> bool:
    """Whether to look again, so long after the last time and with so many objects that came to stay since."""
    share = _SHARE_AT_MOST if unseen >= _MOST_UNSEEN else _SHARE_OF_TIME
    shortest_s = _CHECK_EVERY_S if unseen >= _MOST_UNSEEN else _SHORTEST_PAUSE_S
    return since_s >= max(shortest_s, last_took_s / share)


def came_to_stay() -> int:
    """Objects so far that outlived the young generations, about."""
    youngest, middle, _ = gc.get_stats()
    # A round begins when there is one more than allowed.
    rounds: int = middle["collections"]
    found: int = youngest["collected"] + middle["collected"]
    return rounds * (_MIDDLE + 1) * (_YOUNG + 1) - found


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
    looked_s, took_s, came = time.monotonic(), 0.0, came_to_stay()
    while True:
        await asyncio.sleep(_CHECK_EVERY_S)
        begun_s = time.monotonic()
        if is_due(since_s=begun_s - looked_s, last_took_s=took_s, unseen=came_to_stay() - came):
            gc.collect()
            looked_s, came = time.monotonic(), came_to_stay()
            took_s = looked_s - begun_s
