"""How a test says which fault it tries, and that it could not be tried here."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import pytest

from tests.faults.catalogue import FAULTS

P = ParamSpec("P")
T = TypeVar("T")
Test = Callable[P, Awaitable[None]]

_LIMIT_S = 300.0
"""Of one test: far above what any takes; a scenario that hangs must not stop the others."""


class NotRun(pytest.skip.Exception):
    """`raise NotRun("no fuse device")`: reported as not run, with the reason; never as passed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not run: {reason}", _use_item_location=True)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultProfile:
    """How much of everything: `make test` is quick, `make faults` is full."""

    is_full: bool

    def of(self, *, quick: T, full: T) -> T:
        """`rounds = profile.of(quick=3, full=200)`"""
        return full if self.is_full else quick


def scenario(fault_id: str, *, quick: bool = True, limit_s: float = _LIMIT_S) -> Callable[[Test[P]], Test[P]]:
    """Marks a test of that fault. Several tests may try one fault; each must pass.

    `quick=False`: runs in the full profile only. The test is called `test_<id>_...`, such as
    `test_a01_a_submit_whose_reply_was_lost_makes_one_job`.
    """
    assert fault_id in FAULTS, f"{fault_id} is not in the catalogue"

    def mark(test: Test[P]) -> Test[P]:
        name = getattr(test, "__name__", "")
        assert name.startswith(f"test_{fault_id.lower()}_"), f"{name} tries {fault_id}: say so in its name"
        assert inspect.iscoroutinefunction(test), f"{name} must be async: all scenarios are"

        @functools.wraps(test)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> None:
            async with asyncio.timeout(limit_s):
                await test(*args, **kwargs)

        return pytest.mark.scenario(fault_id, quick=quick)(limited)

    return mark
