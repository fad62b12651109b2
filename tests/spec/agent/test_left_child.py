"""A program that does not end when it is killed is left, and collected when it ends at last."""

import subprocess
import threading

from windlass_agent.spool.left_child import kill_or_leave


def a_child() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "600"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_what_can_be_killed_is_gone_at_once() -> None:
    child = a_child()
    kill_or_leave(child, within_s=20)

    assert child.returncode == -9
    assert not [thread for thread in threading.enumerate() if thread.name == f"left-{child.pid}"]


def test_what_takes_longer_is_collected_later_and_its_pipes_are_closed_now() -> None:
    child = a_child()
    assert child.stdin is not None
    assert child.stdout is not None
    kill_or_leave(child, within_s=-1)  # no time at all

    assert (child.stdin.closed, child.stdout.closed) == (True, True)
    for thread in threading.enumerate():
        if thread.name == f"left-{child.pid}":
            thread.join(20)
    assert child.returncode == -9
