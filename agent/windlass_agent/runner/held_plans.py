"""The plans of one slot: which of them its keeper was told, and which have begun."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from windlass_agent.core.run_plan import CommandPlan, ExitRecord, KeeperRecord
from windlass_agent.runner.plan_messages import PlanMessages
from windlass_agent.spool.durable import JsonRecord, json_line
from windlass_agent.spool.keeper_journal import JournalContent
from windlass_proto.model.ids import AttemptRef


@dataclass(slots=True, kw_only=True)
class HeldPlan:
    ref: AttemptRef
    plan: CommandPlan | None
    """None = handed over by an earlier life of the agent."""
    share: str | None = None
    is_told: bool = False
    is_started: bool = False


class HeldPlans:
    """Those handed over and not ended; and all that the keeper has yet to be told, in order."""

    def __init__(self) -> None:
        self._held: dict[AttemptRef, HeldPlan] = {}
        self._outbox: list[HeldPlan | JsonRecord] = []
        """Plans and other messages."""
        self._messages = PlanMessages()
        self.get = self._held.get

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, ref: AttemptRef) -> bool:
        return ref in self._held

    @property
    def refs(self) -> Collection[AttemptRef]:
        return self._held.keys()

    @property
    def running(self) -> AttemptRef | None:
        return next((held.ref for held in self._held.values() if held.is_started), None)

    @property
    def queued(self) -> tuple[AttemptRef, ...]:
        return tuple(held.ref for held in self._held.values() if not held.is_started)

    @property
    def told(self) -> list[AttemptRef]:
        return [held.ref for held in self._held.values() if held.is_told]

    @property
    def has_untold(self) -> bool:
        return bool(self._outbox)

    @property
    def longest_grace_s(self) -> float | None:
        """None when no plan is known."""
        return max((held.plan.kill_grace_s for held in self._held.values() if held.plan), default=None)

    def put(self, plan: CommandPlan, share: str | None) -> None:
        held = HeldPlan(ref=plan.ref, plan=plan, share=share)
        self._held[plan.ref] = held
        self._outbox.append(held)

    def put_begun(self, ref: AttemptRef) -> None:
        """Its keeper is gone, and its processes are not."""
        self._held[ref] = HeldPlan(ref=ref, plan=None, is_told=True, is_started=True)

    def say(self, message: JsonRecord) -> None:
        """To the keeper, after what it is to be told already."""
        self._outbox.append(message)

    def take_untold(self) -> bytes:
        """As lines for the keeper."""
        lines: list[bytes] = []
        later: list[HeldPlan | JsonRecord] = []
        for item in self._outbox:
            if isinstance(item, dict):
                lines.append(json_line(item))
            elif item.plan is None:
                later.append(item)
            else:
                item.is_told = True
                lines += map(json_line, self._messages.messages(item.plan, item.share))
        self._outbox = later
        return b"".join(lines)

    def take_messages(self) -> bytes:
        """The same without plans: these wait for the next keeper."""
        messages = [item for item in self._outbox if isinstance(item, dict)]
        self._outbox = [item for item in self._outbox if isinstance(item, HeldPlan)]
        return b"".join(map(json_line, messages))

    def on_connect(self) -> None:
        """A keeper forgets its templates with a connection."""
        self._messages = PlanMessages()

    def know(self, refs: Iterable[AttemptRef]) -> None:
        """The keeper has them."""
        for ref in refs:
            self._held.setdefault(ref, HeldPlan(ref=ref, plan=None)).is_told = True

    def note_begun(self, ref: AttemptRef | None) -> None:
        if ref in self._held:
            self._held[ref].is_started = True

    def tell_again(self, known: Collection[AttemptRef]) -> None:
        """What was told and is not among the `known` was lost with an earlier connection."""
        missed = [held for held in self._held.values() if held.is_told and held.ref not in known]
        for held in missed:
            held.is_told = False
        self._outbox[:0] = missed

    def take(self, record: KeeperRecord) -> bool:
        """False = it was known: what was read from the journal may come on the connection as well."""
        held = self._held.get(record.ref)
        if held is None:
            return False
        if isinstance(record, ExitRecord):
            del self._held[record.ref]
        elif held.is_started:
            return False
        held.is_started = True
        return True

    def records_in(self, content: JournalContent) -> list[tuple[KeeperRecord, int]]:
        """What the journal tells of these, each with the number of its segment."""
        return [
            (record, content.segment_of[ref].number)
            for ref in self._held
            if ref in content.segment_of
            for record in (content.starts.get(ref), content.ends.get(ref))
            if record
        ]

    def tell_no_more(self, lost: Collection[AttemptRef]) -> None:
        """They were lost with their keeper; so was the meaning of all else that it was to be told."""
        self._outbox = [item for item in self._outbox if isinstance(item, HeldPlan) and item.ref not in lost]

    def drop(self, refs: Iterable[AttemptRef]) -> None:
        for ref in refs:
            del self._held[ref]

    def drop_all(self) -> tuple[AttemptRef, ...]:
        refs = tuple(self._held)
        self._held.clear()
        self._outbox.clear()
        return refs
