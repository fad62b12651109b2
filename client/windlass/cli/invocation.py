"""What every command needs: a client for its time, and jobs by short names."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import click

from windlass.client import Client
from windlass.profile import Profile, find_profile
from windlass_proto.errors import InvalidRequest, NotFound
from windlass_proto.model.ids import JobId

T = TypeVar("T")

PATIENCE = timedelta(seconds=5)
"""A person at a terminal waits this long for a coordinator that is being restarted."""
NEWEST = ("-", "last")
"""Words that mean the job submitted last."""
_FULL_ID = re.compile(r"job-[0-9a-f]{32}")
_PREFIX = re.compile(r"job-[0-9a-f]{0,32}|[0-9a-f]{1,32}")
_SEARCHED_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One run of the command line."""

    profile_file: Path | None = None

    def profile(self) -> Profile:
        return find_profile(self.profile_file)

    def run(self, action: Callable[[Client], Awaitable[T]]) -> T:
        """Runs `action` with a client."""
        profile = self.profile()

        async def with_client() -> T:
            async with Client(profile, patience=PATIENCE) as client:
                return await action(client)

        return asyncio.run(with_client())


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


async def find_job(client: Client, name: str) -> JobId:
    """The job that `name` means: an id, a prefix of one that fits one job only, or `-` or `last`."""
    if name in NEWEST:
        return (await client.newest()).job_id
    if _FULL_ID.fullmatch(name):
        return JobId(name)
    if not _PREFIX.fullmatch(name):
        raise InvalidRequest(f"{name!r} is no job id, nor the beginning of one; `windlass jobs` lists them")
    prefix = name if name.startswith("job-") else f"job-{name}"
    searched = 0
    found: list[JobId] = []
    async for job in client.list(page_size=1000):
        searched += 1
        if job.job_id.startswith(prefix):
            found.append(job.job_id)
        if len(found) > 1 or searched >= _SEARCHED_MAX:
            break
    if not found:
        raise NotFound(f"no job's id begins with {name!r}; `windlass jobs` lists them")
    if len(found) > 1:
        raise InvalidRequest(
            f"{name!r} fits several jobs, such as {found[0]} and {found[1]}: give more of it"
        )
    return found[0]
