"""Named crash points: nothing in production, a hook in tests.

A failpoint marks an arrow of protocol.md, section 7, such as "claim committed, not yet sent". Production
code calls `reach("coord.claim.after_commit")`; only a test that installed a hook notices.
"""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Tells the installed hook, if any, that `name` was reached; the hook may raise or end the process."""
    if _hook is not None:
        _hook(name)


def install(hook: Callable[[str], None] | None) -> None:
    """Sets (or with None removes) the hook. For tests and the programs' start-up only."""
    global _hook
    _hook = hook
