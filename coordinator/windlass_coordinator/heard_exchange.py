"""Which nodes were heard, told among the coordinators of one database (protocol.md, C5).

Each bumps a counter for the nodes that it has heard, many at once, and watches the counters of all others; so
whoever has the role judges by how long it has itself seen a node's counter stand still. While the database
cannot be asked nobody is heard, and that is no node's fault.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from windlass_coordinator.engine.fleet import Fleet
from windlass_coordinator.stores.base import Store, Transaction
from windlass_proto.errors import WindlassError
from windlass_proto.model.ids import NodeKey

_log = structlog.get_logger()

_EVERY = timedelta(seconds=1)
_LONGEST_LOOK = timedelta(seconds=2)
_SEEN_EVERY = timedelta(seconds=30)


class HeardExchange:
    """A duty of every coordinator on a shared database."""

    def __init__(
        self, store: Store, fleet: Fleet, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._monotonic = monotonic
        self._counts: dict[NodeKey, int] = {}
        self._unnoted: set[NodeKey] = set()

    async def run(self) -> None:
        """Until cancelled."""
        looked_s = self._monotonic()
        noted_s = looked_s
        while True:
            await asyncio.sleep(_EVERY.total_seconds())
            fresh = self._fleet.heard_since_last()
            try:
                async with asyncio.timeout(_LONGEST_LOOK.total_seconds()):
                    counts = await self._store.run(lambda tx, fresh=fresh: _exchange(tx, fresh))  # type: ignore[misc]  # mypy cannot infer a lambda's default
            except (WindlassError, TimeoutError) as error:
                _log.warning("heard.not_exchanged", error=str(error) or "the database does not answer")
                self._fleet.hear_again(fresh)
                now_s = self._monotonic()
                self._fleet.pardon(timedelta(seconds=now_s - looked_s))
                looked_s = now_s
                continue
            looked_s = self._monotonic()
            self._note(counts, fresh)
            self._unnoted |= fresh
            if looked_s - noted_s >= _SEEN_EVERY.total_seconds() and self._unnoted:
                noted_s = looked_s
                seen = dict.fromkeys(self._unnoted, datetime.now(UTC))
                self._unnoted = set()
                await self._store.run(lambda tx, seen=seen: tx.note_seen(seen))  # type: ignore[misc]  # as above

    def _note(self, counts: dict[NodeKey, int], ours: set[NodeKey]) -> None:
        for node_key, count in counts.items():
            if self._counts.get(node_key, count) != count and node_key not in ours:
                self._fleet.hear_of(node_key)
            elif node_key not in self._counts:
                self._fleet.expect(node_key)
        for node_key in self._counts.keys() - counts.keys():
            self._fleet.forget(node_key)
        self._counts = counts


def _exchange(tx: Transaction, heard: set[NodeKey]) -> dict[NodeKey, int]:
    if heard:
        tx.bump_heard(sorted(heard))
    return tx.heard_counts()
