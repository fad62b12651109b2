"""What the page about reliability says of a fault."""

from pathlib import Path

import pytest

from tests.faults import outcomes as page
from tests.faults.catalogue import FAULTS, PROMISES
from tests.faults.outcomes import Outcomes, Result, write_page


def test_every_fault_proves_a_promise_or_is_an_abuse_and_every_promise_has_a_proof() -> None:
    assert {promise for fault in FAULTS.values() for promise in fault.promises} == set(PROMISES)


def test_a_fault_has_passed_when_all_of_its_tests_have() -> None:
    outcomes = Outcomes()
    outcomes.note("A01", "one", Result.PASSED)
    assert outcomes.verdicts() == {"A01": "passed"}
    outcomes.note("A01", "two", Result.PASSED)
    assert outcomes.verdicts() == {"A01": "passed (2 tests)"}
    outcomes.note("A01", "two", Result.FAILED)
    assert outcomes.verdicts() == {"A01": "**failed**: two"}


def test_what_could_not_run_has_not_passed() -> None:
    outcomes = Outcomes()
    outcomes.note("A08", "one", Result.NOT_RUN, "no /dev/fuse")
    assert outcomes.verdicts() == {"A08": "not run: no /dev/fuse"}
    outcomes.note("A08", "two", Result.PASSED)
    assert outcomes.verdicts() == {"A08": "passed in part; not run: no /dev/fuse"}


def test_a_failure_at_the_end_is_not_forgotten() -> None:
    outcomes = Outcomes()
    outcomes.note("A01", "one", Result.FAILED)
    outcomes.note("A01", "one", Result.PASSED)
    assert outcomes.verdicts() == {"A01": "**failed**: one"}


def test_a_run_of_some_leaves_the_lines_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "reliability.md"
    file.write_text("# Before\n" + page._BEGIN + page._END + "after\n")
    monkeypatch.setattr(page, "PAGE", file)
    first, second = Outcomes(), Outcomes()
    first.note("A01", "one", Result.PASSED)
    second.note("A02", "two", Result.FAILED)
    write_page(first, is_whole=True, is_full=True)
    write_page(second, is_whole=False, is_full=True)
    lines = {line[:5]: line for line in file.read_text().splitlines() if line.startswith("| A0")}
    assert lines["| A01"].endswith("| passed |")
    assert lines["| A02"].endswith("| **failed**: two |")
    assert lines["| A03"].endswith("| not written |")
    write_page(second, is_whole=True, is_full=True)
    assert "| passed |" not in file.read_text()
    assert file.read_text().startswith("# Before\n")
    assert file.read_text().endswith("after\n")


def test_the_quick_profile_says_so_and_takes_nothing_from_the_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "reliability.md"
    file.write_text(page._BEGIN + page._END)
    monkeypatch.setattr(page, "PAGE", file)
    full, quick = Outcomes(), Outcomes()
    full.note("A01", "one", Result.PASSED)
    for fault in ("A01", "A02"):
        quick.note(fault, "two", Result.PASSED)
    quick.left_out |= {"A02", "A03"}
    write_page(full, is_whole=True, is_full=True)
    for _ in range(2):
        write_page(quick, is_whole=True, is_full=False)

    lines = {line[:5]: line for line in file.read_text().splitlines() if line.startswith("| A0")}
    assert lines["| A01"].endswith("| passed |")
    assert lines["| A02"].endswith("| passed (quick profile only) |")
    assert lines["| A03"].endswith("| not tried yet |")
    assert lines["| A04"].endswith("| not written |")
