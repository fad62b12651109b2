"""Ending a program that may be past ending: who waits for a dead file system cannot even be killed."""

import subprocess
import threading
from contextlib import suppress


def kill_or_leave(child: "subprocess.Popen[bytes]", *, within_s: float) -> None:
    """Returns when it is gone, or after `within_s`; then a thread collects it whenever it ends at last."""
    child.kill()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(within_s)
        return
    threading.Thread(target=child.wait, name=f"left-{child.pid}", daemon=True).start()
