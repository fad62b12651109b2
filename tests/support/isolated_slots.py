"""A slot whose commands are isolated, as an agent would have it; what the machine must have for that."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.keeper_slots import SlotUnderTest, a_slot
from windlass_agent.core.isolation import sandbox_plan
from windlass_agent.isolation.machine import find_bwrap, what_is_lacking
from windlass_agent.spool.remove_tree import remove_tree
from windlass_proto.model.specs import Isolation

USERS = (1_900_000_000, 16)
"""Of no agent's range."""


@cache
def lacking() -> str:
    """What is missing here for the tests to run; "" = nothing."""
    return what_is_lacking(Path("/var/lib/windlass-test"), USERS[0]).get(Isolation.STRICT, "")


@contextmanager
def open_directory() -> Iterator[Path]:
    """That other users can pass, unlike those of pytest."""
    made = Path(tempfile.mkdtemp(prefix="windlass-test-", dir="/var/lib"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        remove_tree(made)


@asynccontextmanager
async def isolated_slot(**settings: Any) -> AsyncIterator[SlotUnderTest]:
    """Its directory plays the agent's state directory."""
    with open_directory() as directory:
        state = {"state": str(directory), "uids": USERS, "bwrap": find_bwrap()}
        async with a_slot(directory, **(state | settings)) as slot:
            yield slot


def isolated(profile: Isolation, **parts: Any) -> Mapping[str, Any]:
    """For `hand_over` and `run`."""
    return {"isolation": sandbox_plan(profile, **parts)}


def make_owned(directory: Path, uid: int) -> Path:
    directory.mkdir(mode=0o700, parents=True)
    os.chown(directory, uid, uid)
    return directory
