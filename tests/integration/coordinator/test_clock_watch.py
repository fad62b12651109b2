"""What the watch over the wall clock does at a start."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from tests.support.builders import a_job, a_task, exits
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.core.records import Wakes
from windlass_coordinator.core.retry import RetryPolicy
from windlass_coordinator.duties import ClockWatch, RetryTimer
from windlass_coordinator.stores.base import Store
from windlass_proto.model.states import InstanceState

POLICY = RetryPolicy(base=timedelta(milliseconds=100), ceiling=timedelta(milliseconds=200))


def test_a_clock_that_was_set_back_before_the_start_delays_no_retry() -> None:
    with InMemoryCoordinator() as coordinator:
        coordinator.now = datetime.now(UTC) + timedelta(hours=1)
        job = coordinator.submit(a_job(a_task(max_retries=1)))
        node = coordinator.node()
        coordinator.report(node, coordinator.claim_one(node), exits(1))
        assert coordinator.instance(job, 0).state is InstanceState.RETRY_WAIT
        asyncio.run(_until_a_retry_is_due(coordinator.store))
        assert coordinator.instance(job, 0).state is InstanceState.READY


async def _until_a_retry_is_due(store: Store) -> None:
    """The watch begins when the timer has looked already, found nothing due for an hour, and sleeps."""
    timer = RetryTimer(store, POLICY)
    is_due = asyncio.Event()

    def after_commit(wakes: Wakes) -> None:
        if wakes.due is not None:
            timer.arm(wakes.due)
        if wakes.clusters:
            is_due.set()

    store.listen(follow=lambda tx, wakes: (), after_commit=after_commit)
    duties = [asyncio.ensure_future(timer.run())]
    try:
        async with asyncio.timeout(30):
            while timer._due is None or timer._due < datetime.now(UTC) + timedelta(minutes=30):
                await asyncio.sleep(0.01)
            watch = ClockWatch(store, POLICY, monotonic=time.monotonic)
            duties.append(asyncio.ensure_future(watch.run()))
            await is_due.wait()
    finally:
        for duty in duties:
            duty.cancel()
            with suppress(asyncio.CancelledError):
                await duty
