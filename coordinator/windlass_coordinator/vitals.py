"""How the coordinator itself is: its disk, store, load and duties; made once and shared by all parts."""

import asyncio
import resource
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from windlass_coordinator.core.disk_space import DiskPolicy
from windlass_coordinator.core.overload import OverloadLimits
from windlass_coordinator.disk_reserve import DiskReserve
from windlass_coordinator.readiness import DutyBoard, Readiness
from windlass_coordinator.rpc.connections import ConnectionWatch, Peers
from windlass_coordinator.rpc.overload import Overload
from windlass_coordinator.stall_watch import StallWatch
from windlass_coordinator.stores.condition import StoreCondition

_LOOK_AT_DISK_EVERY = timedelta(seconds=1)


class Vitals:
    """Of one process."""

    def __init__(
        self,
        data: Path,
        *,
        disk: DiskPolicy,
        overload: OverloadLimits,
        pardon: Callable[[timedelta], None],
        on_broken: Callable[[str], None],
    ) -> None:
        """`pardon` is told how long the process stood still, `on_broken` why it must end now."""
        self._data = data
        self.limits = overload
        self.on_broken = on_broken
        self.reserve = DiskReserve(data, disk)
        self.condition = StoreCondition(
            room=self.reserve, on_broken=on_broken, queue_limit=overload.store_queue
        )
        self.overload = Overload(overload)
        self.peers = Peers(overload)
        self.duties = DutyBoard()
        self.stalls = StallWatch(pardon)
        self.connections: ConnectionWatch | None = None
        self.readiness = Readiness(
            self.condition.why_not_ready, lambda: self.reserve.why_short, self.duties.why_not_ready
        )

    def why_logs_wait(self, directory: Path) -> Callable[[], str | None]:
        """Says why logs in `directory` must leave the room to the database, if they share its disk."""
        if directory.stat().st_dev != self._data.stat().st_dev:
            return lambda: None
        return lambda: self.reserve.why_short

    def watch_port(self, port: int) -> ConnectionWatch:
        """Looks after the connections to the gRPC port from now on."""
        self.connections = ConnectionWatch(port, peers=self.peers, limits=self.limits)
        return self.connections

    def own_duties(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What is to be done all the time."""
        return {"stall": self.stalls.run, "disk": self._watch_disk}

    async def _watch_disk(self) -> None:
        while True:
            await asyncio.to_thread(self.reserve.look)
            await asyncio.sleep(_LOOK_AT_DISK_EVERY.total_seconds())


class VitalsCollector(Collector):
    """The same as metrics: of each bound how much is used, what it is, and how often it was reached."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        vitals = self._vitals
        used = GaugeMetricFamily("windlass_bound_used", "Of each bound (overload.*), now", labels=["bound"])
        limit = GaugeMetricFamily("windlass_bound_limit", "Each bound (overload.*)", labels=["bound"])
        refused = CounterMetricFamily("windlass_refused", "Calls refused at each bound", labels=["bound"])
        for name, current, most, shed in self._bounds():
            used.add_metric([name], current)
            limit.add_metric([name], most)
            refused.add_metric([name], shed)
        yield from (used, limit, refused)
        yield GaugeMetricFamily(
            "windlass_ready", "1 when work is taken on", value=float(vitals.readiness.why_not() is None)
        )
        yield GaugeMetricFamily(
            "windlass_disk_free_bytes", "Of the data directory's disk", value=vitals.reserve.free_bytes
        )
        yield CounterMetricFamily(
            "windlass_stalls", "Times this process stood still for 2 s or more", value=vitals.stalls.count
        )
        failures = CounterMetricFamily("windlass_duty_failures", "Of each duty", labels=["duty"])
        for duty, times in vitals.duties.failures.items():
            failures.add_metric([duty], times)
        yield failures

    def _bounds(self) -> Iterable[tuple[str, float, float, float]]:
        vitals = self._vitals
        for gate in vitals.overload.gates:
            yield gate.name, gate.current, gate.limit, gate.shed
        condition = vitals.condition
        yield "store_queue", condition.waiting(), condition.queue_limit, sum(condition.shed.values())
        if (watch := vitals.connections) is not None:
            yield "connections", watch.count, vitals.limits.connections, 0
            yield "strangers", watch.strangers, vitals.limits.strangers, watch.closed


def allow_many_files() -> None:
    """As many open files as the system lets this process have: each connection and each open log is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
