"""When the agent comes before the commands that it runs."""

import os

import pytest

from windlass_agent.node.priority import Priority


@pytest.fixture
def usual() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: needs root, to raise a priority")
def test_an_agent_that_is_kept_waiting_comes_first_until_it_was_calm_for_a_minute(usual: int) -> None:
    priority = Priority()
    assert not priority.was_late(0.05, now_s=100.0)
    assert os.getpriority(os.PRIO_PROCESS, 0) == usual
    assert priority.was_late(0.5, now_s=101.0)
    assert os.getpriority(os.PRIO_PROCESS, 0) == -10
    assert not priority.was_late(0.5, now_s=130.0)
    assert not priority.was_late(0.0, now_s=189.0)
    assert priority.was_late(0.0, now_s=190.0)
    assert os.getpriority(os.PRIO_PROCESS, 0) == usual
