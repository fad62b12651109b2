"""What decisions were asked for: the real judges, watched while a run goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.simulation.coverage import Coverage
from windlass_coordinator.engine import report, session


@contextmanager
def observed(coverage: Coverage) -> Iterator[None]:
    """Notes each (state, event) pair that a judge of the coordinator decides on."""
    judge, judge_item = report.judge, session.judge_inventory_item

    def watched_judge(view: Any, event: Any, **more: Any) -> Any:
        judgement = judge(view, event, **more)
        state = "unknown" if view is None else f"{view.state}"
        if view is not None and view.fence != event.ref.fence:
            state = "fenced"
        coverage.saw("report", state, f"{type(event.what).__name__} {judgement.verdict}")
        return judgement

    def watched_judge_item(view: Any, ref: Any, **more: Any) -> Any:
        verdict = judge_item(view, ref, **more)
        state = "unknown" if view is None else f"{view.state}"
        if view is not None and view.fence != ref.fence:
            state = "fenced"
        coverage.saw("inventory", state, f"{'ended' if more['has_ended'] else 'not ended'} {verdict}")
        return verdict

    report.judge, session.judge_inventory_item = watched_judge, watched_judge_item
    try:
        yield
    finally:
        report.judge, session.judge_inventory_item = judge, judge_item
