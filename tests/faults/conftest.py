"""The world of a scenario, the profile of a run, and the table that it writes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from _pytest.reports import TestReport

from tests.faults.outcomes import Outcomes, Result, write_page
from tests.faults.scenarios import FaultProfile, NotRun
from tests.support.world import World, a_world

_OUTCOMES = pytest.StashKey[Outcomes]()
_OVER = pytest.StashKey[bool]()
"""Whether the scenario itself has gone through."""
_HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--full", action="store_true", default=False, help="the full profile: hours, not minutes")
    group.addoption(
        "--write-page",
        action="store_true",
        default=False,
        help="put what came of it into docs/reliability.md",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = Outcomes()


def _is_full(config: pytest.Config) -> bool:
    return bool(config.getoption("full", default=False))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the quick profile what takes long is left out."""
    if _is_full(config):
        return
    slow = [item for item in items if _is_slow(item)]
    config.hook.pytest_deselected(items=slow)
    marks = (item.get_closest_marker("scenario") for item in slow)
    config.stash[_OUTCOMES].left_out |= {mark.args[0] for mark in marks if mark is not None}
    items[:] = [item for item in items if item not in slow]


def _is_slow(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("scenario")
    return mark is not None and (not mark.kwargs["quick"] or item.get_closest_marker("full_only") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: TestReport = yield
    mark = item.get_closest_marker("scenario")
    if mark is not None:
        outcomes = item.config.stash[_OUTCOMES]
        test = item.name
        if report.when == "call":
            item.stash[_OVER] = report.passed
        if report.failed:
            outcomes.note(mark.args[0], test, Result.FAILED)
        elif report.skipped:
            outcomes.note(mark.args[0], test, Result.NOT_RUN, _why(call))
        elif report.when == "teardown":
            outcomes.note(mark.args[0], test, Result.PASSED)
    return report


def _why(call: pytest.CallInfo[None]) -> str:
    error = call.excinfo.value if call.excinfo is not None else None
    return error.reason if isinstance(error, NotRun) else str(error)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("write_page", default=False):
        asked = session.config.args
        is_whole = len(asked) == 1 and Path(asked[0]).resolve() == _HERE and not session.config.option.keyword
        is_full = _is_full(session.config)
        write_page(session.config.stash[_OUTCOMES], is_whole=is_whole, is_full=is_full)


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> FaultProfile:
    return FaultProfile(is_full=_is_full(request.config))


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Nothing runs in it yet: `await world.start()`. What it checks at its end is part of the scenario."""
    async with a_world(tmp_path) as world:
        yield world
        # A scenario that has failed or could not run leaves a world that proves nothing.
        if request.node.stash.get(_OVER, False):
            await world.close()
