"""Boots a guest, runs the tests of `inside` and others in it, and shows each of those as one of this file.

One boot serves all that are selected; `make test` selects those that are not `long`.
"""

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.guest import CHECKOUT, RESULTS, run_in_guest, why_no_guest
from tests.support.nfs_server import why_no_nfs_server

_FILES = (
    "tests/guest/inside/test_nfs",
    "tests/integration/agent/test_keeper_kill",  # where cgroups are of version 2 alone
)
_WITHIN_S = 600
"""With other load on the machine; two free cores need three minutes."""
_PYTEST = (
    # Of the plugins only what pyproject.toml has settings for: each costs seconds there.
    f"PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONDONTWRITEBYTECODE=1 {CHECKOUT}/.venv/bin/python -m pytest"
    f" -p pytest_asyncio.plugin -p no:cacheprovider -v -ra --junitxml={RESULTS}/report.xml"
)
_QUICK = {
    "test_an_export_is_read_and_cannot_be_written",
    "test_options_of_the_task_reach_the_kernel_with_those_that_protect_the_node",
    "test_an_export_that_is_not_there_is_the_users_mistake",
    "test_a_missing_export_takes_off_what_was_mounted_before_it",
    "test_a_stopped_attempt_does_not_wait_for_a_silent_server",
}
_TESTS = [
    pytest.param(file, name, id=name, marks=() if name in _QUICK else pytest.mark.long)
    for file in _FILES
    for name, _ in inspect.getmembers(importlib.import_module(file.replace("/", ".")), inspect.isfunction)
    if name.startswith("test_")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    case: str
    """The test with its parameters."""
    failure: str
    """"" = none."""
    skipped: str


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Outcome]]:
    """Of each selected test in the guest, one for each of its cases."""
    why_not = why_no_guest() or why_no_nfs_server()
    if why_not:
        pytest.skip(f"no guest with an NFS server: {why_not}")
    directory = tmp_path_factory.mktemp("guest")
    said = run_in_guest(directory, f"{_PYTEST} {' '.join(_selected(request.session))}", within_s=_WITHIN_S)
    print(said)
    assert (directory / "report.xml").exists(), said
    return _read(directory / "report.xml")


def _selected(session: pytest.Session) -> list[str]:
    selected = (
        item for item in session.items if isinstance(item, pytest.Function) and item.obj is test_in_a_guest
    )
    return ["{file}.py::{name}".format(**item.callspec.params) for item in selected]


@pytest.mark.parametrize(("file", "name"), _TESTS)
def test_in_a_guest(outcomes: dict[str, list[Outcome]], file: str, name: str) -> None:
    found = outcomes.get(f"{file}.{name}".replace("/", "."), [])
    assert found, f"the guest did not run {name}: {sorted(outcomes)}"
    failures = [f"{outcome.case}:\n{outcome.failure}" for outcome in found if outcome.failure]
    assert not failures, "\n\n".join(failures)
    skipped = [f"{outcome.case}: {outcome.skipped}" for outcome in found if outcome.skipped]
    if skipped:
        pytest.skip("; ".join(skipped))


def _read(report: Path) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name', '').partition('[')[0]}"
        bad = [*case.findall("failure"), *case.findall("error")]
        skipped = case.find("skipped")
        outcome = Outcome(
            case=case.get("name", ""),
            failure="\n".join(f"{one.get('message')}\n{one.text}" for one in bad),
            skipped="" if skipped is None else skipped.get("message", ""),
        )
        found.setdefault(name, []).append(outcome)
    return found
