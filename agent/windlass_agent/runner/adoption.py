"""Takes over what the agent before this one left: its intents, and what its keepers still run."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby

import structlog

from windlass_agent.core.readoption import (
    EndedBefore,
    Finding,
    InKeeper,
    LostBefore,
    NotStarted,
    SlotFinding,
    decide_readoption,
)
from windlass_agent.runner.attempt_runner import AttemptRunner
from windlass_agent.runner.executor import Executor
from windlass_agent.runner.intent_parts import batch_of
from windlass_agent.runner.live_attempt import LiveAttempt, end_of, never_began
from windlass_agent.runner.slot_inventory import SlotInventory
from windlass_agent.runner.task_template import TaskTemplate, TaskTemplates
from windlass_agent.spool.durable import NO_RECORD
from windlass_agent.spool.intents import SharedPart
from windlass_proto.failpoints import reach
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import AttemptPhase

log = structlog.get_logger()


async def adopt(
    runner: AttemptRunner,
    executors: Sequence[Executor],
    templates: TaskTemplates,
    *,
    intents: Mapping[AttemptRef, SharedPart],
    gpus: Mapping[AttemptRef, tuple[str, ...]],
    boot_id: str,
    ended_by_agent: AbstractSet[AttemptRef],
    settle: Callable[[Sequence[SlotInventory]], Awaitable[Sequence[SlotInventory]]],
    now_s: float,
) -> None:
    """Puts what is found into the runner; nothing of it goes on before the coordinator has confirmed it.

    `settle` sees to what keepers know nothing of, such as containers.
    """
    reach("agent.adopt.before")
    inventories = await settle(await asyncio.gather(*(executor.adopt() for executor in executors)))
    take_over(
        runner,
        executors,
        templates,
        inventories,
        intents=intents,
        gpus=gpus,
        boot_id=boot_id,
        ended_by_agent=ended_by_agent,
        now_s=now_s,
    )


def take_over(
    runner: AttemptRunner,
    executors: Sequence[Executor],
    templates: TaskTemplates,
    inventories: Sequence[SlotInventory],
    *,
    intents: Mapping[AttemptRef, SharedPart],
    gpus: Mapping[AttemptRef, tuple[str, ...]],
    boot_id: str,
    ended_by_agent: AbstractSet[AttemptRef],
    now_s: float,
) -> None:
    """Decides what each attempt is from what the slots hold; `inventories` in the order of `executors`."""
    slots = {
        number: SlotFinding(
            running=inventory.running, queued=inventory.queued, ended=inventory.ended, lost=inventory.lost
        )
        for number, inventory in enumerate(inventories)
    }
    reach("agent.adopt.after_slots")
    templates_of = _templates(intents, templates)
    old = {ref for ref in templates_of if intents[ref].get("boot_id") != boot_id}
    found = decide_readoption(templates_of, slots, before_boot=old, ended_by_agent=ended_by_agent)
    for ref, finding in found.attempts.items():
        attempt = LiveAttempt(ref=ref, template=templates_of[ref], accepted_at_s=now_s, is_held=True)
        attempt.has_directory = True
        attempt.gpus = gpus.get(ref, ())
        _apply(runner, attempt, finding)
    runner.adopted()
    reach("agent.adopt.before_strangers")
    for number, ref in found.strangers:
        executors[number].stop(ref)
        executors[number].forget(ref)
    reach("agent.adopt.after")
    if found.attempts or found.strangers:
        log.info("attempts.adopted", attempts=len(found.attempts), strangers=len(found.strangers))


def _apply(runner: AttemptRunner, attempt: LiveAttempt, finding: Finding) -> None:
    runner.put(attempt)
    match finding:
        case NotStarted():
            pass
        case InKeeper(slot=slot, is_running=is_running):
            attempt.phase = AttemptPhase.RUNNING if is_running else AttemptPhase.ASSIGNED
            runner.course.occupy(attempt, slot)
        case LostBefore(slot=slot, what=what):
            attempt.slot, attempt.is_handed_over = slot, slot is not None
            what = runner.course.lost_with_output(attempt, what)
            attempt.phase, attempt.results = AttemptPhase.ENDED, (what,)
            runner.course.ship_rest(attempt, (what.stdout_end, what.stderr_end))
        case EndedBefore(slot=slot, record=record):
            attempt.slot, attempt.is_handed_over = slot, True
            attempt.exit = record
            began = not never_began(record)
            attempt.phase = AttemptPhase.ENDED if began else AttemptPhase.ASSIGNED
            finalizing = attempt.uploads_results and record.kind is None
            is_judged = began and (attempt.is_given_up or not attempt.has_inputs)
            attempt.results = (end_of(attempt, record, finalizing=finalizing),) if is_judged else ()
            runner.course.ship_rest(attempt, (record.stdout_end, record.stderr_end))


def _templates(
    intents: Mapping[AttemptRef, SharedPart], templates: TaskTemplates
) -> dict[AttemptRef, TaskTemplate]:
    def by_task(ref: AttemptRef) -> int:
        return ref.task_key

    """Without those whose assignment cannot be read: the coordinator learns that they are missing here."""
    found: dict[AttemptRef, TaskTemplate] = {}
    for _, group in groupby(sorted(intents, key=by_task), key=by_task):
        refs = list(group)
        try:
            template = templates.of(batch_of(intents[refs[0]], refs))
        except NO_RECORD as problem:
            log.error("assignments.unreadable", task_key=refs[0].task_key, count=len(refs), why=repr(problem))
            continue
        found |= dict.fromkeys(refs, template)
    return found
