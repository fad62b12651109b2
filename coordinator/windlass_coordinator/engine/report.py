"""Report: what a node tells about its attempts, judged and recorded in one transaction."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from windlass_coordinator.core.attempt_lifecycle import UNASKED_STOP, Judgement, judge
from windlass_coordinator.core.records import AttemptView, Fact, NodeView
from windlass_coordinator.engine.claim import look_again
from windlass_coordinator.engine.nodes import DRAINED, is_drain_over, note_prepare_failures
from windlass_coordinator.engine.settle import Ending, Rules, conclude
from windlass_coordinator.stores.base import AttemptEnd, Transaction
from windlass_proto import failpoints
from windlass_proto.model.events import AttemptEvent, Exited, Happening, LostOnNode, Started
from windlass_proto.model.facts import FactKind
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import AttemptState
from windlass_proto.model.verdicts import EventVerdict


def report(
    tx: Transaction, node: NodeView, events: Sequence[AttemptEvent], *, rules: Rules, now: datetime
) -> list[EventVerdict]:
    """Records the events; one verdict for each, in their order. Only attempts of `node` can be touched."""
    views = tx.attempt_views([event.ref for event in events])
    verdicts: list[EventVerdict] = []
    progress: dict[AttemptRef, AttemptState] = {}
    finalizing: list[tuple[AttemptRef, Exited]] = []
    endings: list[Ending] = []
    # Rare; what is the rule is worth a shorter way.
    has_repeats = len({event.ref for event in events}) < len(events)
    for event in events:
        ref = event.ref
        view = views.get((ref.task_key, ref.index, ref.attempt))
        judgement = judge(view, event, node_key=node.node_key)
        if judgement.reason == UNASKED_STOP and is_drain_over(node, now=now):
            judgement = replace(judgement, failure=FailureKind.PREEMPTED, reason=DRAINED)
        verdicts.append(judgement.verdict)
        if view is None or judgement.state is None:
            continue
        if judgement.state.is_terminal:
            endings.append(_ending(event, view, judgement))
            progress.pop(ref, None)
        elif isinstance(event.what, Exited):
            finalizing.append((ref, event.what))
        else:
            progress[ref] = judgement.state
        if has_repeats:
            views[ref.task_key, ref.index, ref.attempt] = _view_after(view, event, judgement)
    images = _images(events, verdicts)
    if images:
        tx.note_images(images)
    if progress:
        tx.progress_attempts(list(progress.items()), now=now)
    if finalizing:
        tx.record_exits(finalizing, now=now)
    conclude(tx, endings, rules=rules, now=now)
    if endings:
        look_again(tx, node)
    _judge_node(tx, node, events, endings, rules=rules, now=now)
    _audit_conflicts(tx, node, events, verdicts, now=now)
    failpoints.reach("coord.report.before_commit")
    return verdicts


def _images(events: Sequence[AttemptEvent], verdicts: Sequence[EventVerdict]) -> list[tuple[AttemptRef, str]]:
    """Also of an attempt whose end is known already: what is told late is told once."""
    told = zip(events, verdicts, strict=True)
    return [
        (event.ref, event.what.image_digest)
        for event, verdict in told
        if isinstance(event.what, Started)
        and event.what.image_digest
        and verdict in (EventVerdict.ACCEPTED, EventVerdict.DUPLICATE)
    ]


def _judge_node(
    tx: Transaction,
    node: NodeView,
    events: Sequence[AttemptEvent],
    endings: Sequence[Ending],
    *,
    rules: Rules,
    now: datetime,
) -> None:
    failed = {e.end.ref.task_key for e in endings if e.end.failure is FailureKind.INFRA_PREPARE}
    if not failed and not node.prepare_failed_jobs:
        return
    started = any(isinstance(event.what, Started | Exited) for event in events)
    jobs = frozenset(task.job_key for task in tx.task_views(failed).values())
    note_prepare_failures(tx, node, jobs, started=started, rules=rules, now=now)


def _view_after(view: AttemptView, event: AttemptEvent, judgement: Judgement) -> AttemptView:
    assert judgement.state is not None
    after = replace(view, state=judgement.state, failure=judgement.failure)
    if isinstance(event.what, Exited):
        return replace(after, exit_code=event.what.code, exit_signal=event.what.signal)
    return after


def _ending(event: AttemptEvent, view: AttemptView, judgement: Judgement) -> Ending:
    assert judgement.state is not None
    return Ending(
        end=AttemptEnd(
            ref=event.ref,
            state=judgement.state,
            failure=judgement.failure,
            reason=judgement.reason,
            exit=event.what if isinstance(event.what, Exited) else None,
            log_ends=_log_ends(event.what),
        ),
        was_stopping=view.state is AttemptState.STOPPING,
    )


def _log_ends(what: Happening) -> tuple[int, int] | None:
    return (what.stdout_end, what.stderr_end) if isinstance(what, LostOnNode) else None


def _audit_conflicts(
    tx: Transaction,
    node: NodeView,
    events: Sequence[AttemptEvent],
    verdicts: Sequence[EventVerdict],
    *,
    now: datetime,
) -> None:
    if EventVerdict.CONFLICT not in verdicts:
        return
    facts = [
        Fact(
            kind=FactKind.ATTEMPT_CONFLICT,
            tenant=node.tenant,
            task_key=event.ref.task_key,
            node_key=node.node_key,
            payload={"index": event.ref.index, "attempt": event.ref.attempt, "said": repr(event.what)},
        )
        for event, verdict in zip(events, verdicts, strict=True)
        if verdict is EventVerdict.CONFLICT
    ]
    tx.add_facts(facts, now=now)
