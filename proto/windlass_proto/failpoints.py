"""Named crash points: nothing in production, a hook in tests.

A failpoint marks an arrow of protocol.md, section 7, such as "claim committed, not yet sent". Production
code calls `reach("coord.claim.after_commit")`; only a test that installed a hook notices. In a process of
its own a test asks for a crash with WINDLASS_FAILPOINT and WINDLASS_TEST_BUILD=1: the second, so that
nobody has it by accident.
"""

import os
import signal
from collections.abc import Callable, Mapping

_hook: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Tells the installed hook, if any, that `name` was reached; the hook may raise or end the process."""
    if _hook is not None:
        _hook(name)


def install(hook: Callable[[str], None] | None) -> None:
    """Sets (or with None removes) the hook. For tests and the programs' start-up only."""
    global _hook
    _hook = hook


def asked_for(environment: Mapping[str, str]) -> str:
    """`name` or `name:n` where a test asks for a crash, else ""."""
    is_test = environment.get("WINDLASS_TEST_BUILD") == "1"
    return environment.get("WINDLASS_FAILPOINT", "") if is_test else ""


def install_from(text: str) -> None:
    """`name` or `name:n`: the n-th reach of that point ends this process as kill -9 does. "" = nothing."""
    if not text:
        return
    name, _, nth = text.partition(":")
    left = int(nth or 1)

    def crash(reached: str) -> None:
        nonlocal left
        if reached == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    install(crash)
