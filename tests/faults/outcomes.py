"""What came of each fault, and the table of it in docs/reliability.md."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.faults.catalogue import FAMILIES, FAULTS, PROMISES, Fault

PAGE = Path(__file__).parents[2] / "docs/reliability.md"
_BEGIN = "<!-- written by `make faults`, from here -->\n"
_END = "<!-- to here -->\n"
_ROW = re.compile(r"^\| ([A-Z]\d\d) \|.*\| ([^|]*) \|$", re.MULTILINE)
NOT_WRITTEN = "not written"
NOT_TRIED = "not tried yet"
_QUICK = " (quick profile only)"


class Result(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(slots=True)
class Outcomes:
    """Of one run of tests."""

    by_test: dict[tuple[str, str], tuple[Result, str]] = field(default_factory=dict)
    """By fault and test: what came of it and why."""
    left_out: set[str] = field(default_factory=set)
    """Faults with tests that belong to the full profile only."""

    def note(self, fault_id: str, test: str, result: Result, why: str = "") -> None:
        """A test has several phases; a failure of one of them stays."""
        before = self.by_test.get((fault_id, test))
        if before is None or before[0] is Result.PASSED:
            self.by_test[fault_id, test] = result, why

    def verdicts(self) -> dict[str, str]:
        """One line per fault that was tried."""
        tests: dict[str, list[tuple[str, Result, str]]] = defaultdict(list)
        for (fault_id, test), (result, why) in self.by_test.items():
            tests[fault_id].append((test, result, why))
        return {fault_id: _verdict(found) for fault_id, found in tests.items()}


def _verdict(tests: list[tuple[str, Result, str]]) -> str:
    failed = sorted(test for test, result, _ in tests if result is Result.FAILED)
    not_run = sorted({why for _, result, why in tests if result is Result.NOT_RUN})
    passed = sum(result is Result.PASSED for _, result, _ in tests)
    if failed:
        return f"**failed**: {', '.join(failed)}"
    if not_run:
        reasons = "; ".join(not_run).replace("|", "/").replace("\n", " ")
        return f"passed in part; not run: {reasons}" if passed else f"not run: {reasons}"
    return "passed" if passed == 1 else f"passed ({passed} tests)"


def write_page(outcomes: Outcomes, *, is_whole: bool, is_full: bool) -> None:
    """Puts the verdicts into the page. A run of some tests leaves the lines of the others as they are, and a
    run of the quick profile those of the full one."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    old, _, after = rest.partition(_END)
    verdicts = {} if is_whole and is_full else dict(_ROW.findall(old))
    verdicts |= outcomes.verdicts() if is_full else _quick(outcomes, verdicts)
    PAGE.write_text(before + _BEGIN + "".join(_section(verdicts)) + _END + after, encoding="utf-8")


def _quick(outcomes: Outcomes, known: dict[str, str]) -> dict[str, str]:
    """What the quick profile has to say of faults that the full one has not tried."""
    said = dict.fromkeys(outcomes.left_out, NOT_TRIED)
    said |= {fault: verdict + _QUICK for fault, verdict in outcomes.verdicts().items()}
    return {fault: verdict for fault, verdict in said.items() if not _is_from_full(known.get(fault))}


def _is_from_full(verdict: str | None) -> bool:
    return verdict not in (None, NOT_WRITTEN, NOT_TRIED) and not str(verdict).endswith(_QUICK)


def _section(verdicts: dict[str, str]) -> Iterator[str]:
    yield "\n## What is promised, and which faults prove it\n\n| Promise | | Proved by |\n|---|---|---|\n"
    for promise, text in PROMISES.items():
        proof = [fault.id for fault in FAULTS.values() if promise in fault.promises]
        yield f"| {promise} | {text} | {' '.join(proof)} |\n"
    for family, title in FAMILIES.items():
        yield f"\n## {family}. {title}\n\n| Fault | What happens, what must come of it | Proves | Outcome |\n"
        yield "|---|---|---|---|\n"
        for fault in FAULTS.values():
            if fault.id.startswith(family):
                yield _row(fault, verdicts.get(fault.id, NOT_WRITTEN))
    yield "\n"


def _row(fault: Fault, verdict: str) -> str:
    title = fault.title.replace("|", "/")
    return f"| {fault.id} | {title} | {' '.join(fault.promises)} | {verdict} |\n"
