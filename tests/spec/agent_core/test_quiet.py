"""Which heartbeats a node without attempts leaves out."""

from dataclasses import replace
from datetime import timedelta

import pytest

from windlass_agent.core.quiet import QuietState, may_leave_out
from windlass_proto.model.assignments import QuietTiming

QUIET = QuietState(
    timing=QuietTiming(poll_wait=timedelta(seconds=6), interval=timedelta(minutes=5)),
    is_empty=True,
    is_answered=True,
    is_leased=True,
    has_news=False,
    silent_for_s=299,
)


def test_a_node_without_attempts_whose_polls_are_answered_sends_none() -> None:
    assert may_leave_out(QUIET)


@pytest.mark.parametrize(
    "changed",
    [
        {"timing": None},
        {"is_empty": False},
        {"is_answered": False},
        {"is_leased": False},
        {"has_news": True},
        {"silent_for_s": 300},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_one_reason_is_enough_to_send_it(changed: dict[str, object]) -> None:
    assert not may_leave_out(replace(QUIET, **changed))  # type: ignore[arg-type]  # one of its fields
