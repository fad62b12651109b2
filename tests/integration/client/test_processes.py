"""Processes are named so that nobody else's is ever signalled."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from windlass.processes import ProcessIdentity, end, identity_of, wait_until_ended, with_descendants

SOON = timedelta(seconds=20)


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A process with a child of its own; both ignore nothing."""
    script = "import subprocess, sys; print('up', flush=True); subprocess.run(['sleep', '300'])"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield process
    process.stdout.close()
    process.kill()
    process.wait()


def identity(process: "subprocess.Popen[bytes]") -> ProcessIdentity:
    found = identity_of(process.pid)
    assert found is not None
    return found


def test_a_process_that_has_ended_is_not_alive_even_before_it_is_waited_for(
    child: "subprocess.Popen[bytes]",
) -> None:
    one = identity(child)
    assert one.is_alive()
    assert one.send(signal.SIGKILL)
    assert wait_until_ended([one], timeout=SOON) == []
    assert child.returncode is None
    assert not one.send(signal.SIGKILL)


def test_a_reused_pid_is_not_signalled(child: "subprocess.Popen[bytes]") -> None:
    one = identity(child)
    for former in (replace(one, started_ticks=one.started_ticks - 1), replace(one, boot_id="another")):
        assert not former.is_alive()
        assert not former.send(signal.SIGKILL)
    assert one.is_alive()


def test_all_below_a_process_are_found_and_ended(child: "subprocess.Popen[bytes]") -> None:
    parent = identity(child)
    family = with_descendants([parent])
    while len(family) < 2:
        family = with_descendants([parent])
    assert family[0] == parent
    end(family, grace=SOON)
    assert [one for one in family if one.is_alive()] == []


def test_who_ignores_the_request_to_end_is_killed() -> None:
    script = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end([identity(process)], grace=timedelta(milliseconds=200))
        assert process.wait(20) == -signal.SIGKILL
