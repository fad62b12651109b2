"""When a log is complete, and how its followers are woken."""

import asyncio

import pytest

from windlass_coordinator.logstore.base import StreamKey
from windlass_coordinator.rpc.read_log import LogSignals, StreamFacts, stream_state
from windlass_proto.model.ids import JobId, TaskKey
from windlass_proto.model.states import LogState, LogStream

RUNNING = StreamFacts(ended=False, final_end=None, attempt=1)
EXITED = StreamFacts(ended=True, final_end=10, attempt=1)
LOST = StreamFacts(ended=True, final_end=None, attempt=1)
LOST_WITH_ITS_KEEPER = StreamFacts(ended=True, final_end=10, attempt=1, is_lost=True)
GIVEN_UP = StreamFacts(ended=True, final_end=10, attempt=1, is_given_up=True)


@pytest.mark.parametrize(
    ("facts", "durable_end", "has_gaps", "state"),
    [
        (RUNNING, 5, False, LogState.STREAMING),
        (RUNNING, 5, True, LogState.STREAMING),
        (EXITED, 9, False, LogState.STREAMING),
        (EXITED, 10, False, LogState.COMPLETE),
        (EXITED, 10, True, LogState.PARTIAL),
        (LOST, 0, False, LogState.PARTIAL),
        (LOST_WITH_ITS_KEEPER, 9, False, LogState.STREAMING),
        (LOST_WITH_ITS_KEEPER, 10, False, LogState.PARTIAL),
        (GIVEN_UP, 9, False, LogState.PARTIAL),
        (GIVEN_UP, 10, False, LogState.COMPLETE),
    ],
)
def test_a_stream_is_complete_when_all_that_was_written_is_stored_without_gaps(
    facts: StreamFacts, durable_end: int, has_gaps: bool, state: LogState
) -> None:
    assert stream_state(facts, durable_end=durable_end, has_gaps=has_gaps) is state


def a_key(index: int) -> StreamKey:
    return StreamKey(
        job_id=JobId("job-1"), task_key=TaskKey(1), index=index, attempt=1, stream=LogStream.STDOUT
    )


def test_a_signal_wakes_those_who_watch_this_stream_and_no_others() -> None:
    signals = LogSignals()
    with (
        signals.watching(a_key(0)) as one,
        signals.watching(a_key(0)) as two,
        signals.watching(a_key(1)) as other,
    ):
        signals.notify(a_key(0))

        assert [one.is_set(), two.is_set(), other.is_set()] == [True, True, False]


def test_a_watcher_that_has_left_is_forgotten() -> None:
    signals = LogSignals()
    with signals.watching(a_key(0)) as event:
        assert signals.watcher_count == 1

    signals.notify(a_key(0))

    assert (signals.watcher_count, event.is_set()) == (0, False)


def test_watchers_are_bounded_and_those_beyond_the_bound_are_never_woken() -> None:
    signals = LogSignals(max_watchers=1)
    with signals.watching(a_key(0)) as first, signals.watching(a_key(0)) as second:
        assert isinstance(second, asyncio.Event)
        signals.notify(a_key(0))

        assert [first.is_set(), second.is_set()] == [True, False]
