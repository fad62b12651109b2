"""Tells the coordinator what happened to attempts, and gives some back, as `link/reporter.py` and
`link/releaser.py` do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.messages import ReleaseCall, ReportCall, Reported
from windlass_agent.core.attempt_phases import PendingEvents
from windlass_proto import failpoints
from windlass_proto.model.events import AttemptEvent, Happening
from windlass_proto.model.ids import AttemptRef

if TYPE_CHECKING:
    from tests.simulation.agent import Agent

_COALESCE_S = 0.05
_MOST_REPORTED = 2000
_MOST_RELEASED = 1000


class Reporter:
    """Implements the runner's EventSink."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._pending = PendingEvents()
        self._on_the_way: tuple[AttemptEvent, ...] = ()
        self._is_due = False

    @property
    def has_told_all(self) -> bool:
        return not self._pending and not self._on_the_way

    def tell(self, ref: AttemptRef, what: Happening) -> None:
        self._pending.add(ref, what)
        self._report_soon()

    def drop(self, ref: AttemptRef) -> None:
        self._pending.drop(ref)

    def begin(self) -> None:
        """A session begins."""
        self._report_soon()

    def suspend(self) -> None:
        """The session is over: what was not answered is told again in the next one."""
        self._pending.put_back(self._on_the_way)
        self._on_the_way = ()

    def _report_soon(self) -> None:
        if self._agent.session is None or self._on_the_way or self._is_due or not self._pending:
            return
        self._is_due = True
        is_urgent = self._pending.has_result and not self._agent.runner.has_queued
        self._agent.after(0.0 if is_urgent else _COALESCE_S, self._report)

    def _report(self) -> None:
        self._is_due = False
        if self._agent.session is None or self._on_the_way:
            return
        self._on_the_way = tuple(self._pending.take(_MOST_REPORTED))
        if not self._on_the_way:
            return
        request = ReportCall(
            node_key=self._agent.node_key, session=self._agent.session, events=self._on_the_way
        )
        self._agent.calls.persist("Report", request, self._reported)

    def _reported(self, reply: Reported) -> None:
        failpoints.reach("agent.report.after_reply")
        agent = self._agent
        events, self._on_the_way = self._on_the_way, ()
        answered = list(zip(events, reply.verdicts, strict=True))
        agent.world.note(
            "reported", agent.name, [(event.ref, type(event.what).__name__, v) for event, v in answered]
        )
        for event, verdict in answered:
            agent.runner.answered(event, verdict)
        agent.forget([events[position].ref for position in reply.forget])
        self._report_soon()


class Releaser:
    """Gives attempts back that were never begun."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._is_at_it = False

    def begin(self) -> None:
        """A session begins."""
        self._is_at_it = False
        self.release_soon()

    def release_soon(self) -> None:
        if self._agent.session is not None and not self._is_at_it:
            self._is_at_it = True
            self._agent.after(0.0, self._agent.calls.in_turn(self._release))

    def _release(self) -> None:
        agent = self._agent
        assert agent.session is not None
        refs = tuple(agent.runner.to_release(_MOST_RELEASED))
        if not refs:
            self._is_at_it = False
            return

        def released(answers: Sequence[bool]) -> None:
            agent.world.note("released", agent.name, list(zip(refs, answers, strict=True)))
            agent.node.ledger.may_forget(agent.node, refs)
            for ref, accepted in zip(refs, answers, strict=True):
                agent.runner.released(ref, accepted=accepted)
            self._release()

        request = ReleaseCall(node_key=agent.node_key, session=agent.session, refs=refs)
        agent.calls.persist("Release", request, released)
