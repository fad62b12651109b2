"""Asks for work as `link/poller.py` does: one poll at a time, abandoned for one that wants more."""

from typing import TYPE_CHECKING

from tests.simulation.messages import PollCall, Polled
from tests.simulation.settings import CALL_TIMEOUT_S
from windlass_proto import failpoints

if TYPE_CHECKING:
    from tests.simulation.agent import Agent

_PATIENCE_S = 0.1
_NO_POLL = -1


class Poller:
    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._seq = 0
        self._want = _NO_POLL
        """Of the poll on its way."""
        self._is_due = False
        self._sent_at_s = 0.0

    def begin(self) -> None:
        """A session begins."""
        self._seq, self._want, self._is_due = 0, _NO_POLL, False
        self._poll_soon()

    def on_demand(self) -> None:
        """There may be room: a poll that wants nothing is abandoned for one that does."""
        if self._agent.session is None or self._want > 0:
            return
        if self._want == 0:
            if not self._agent.runner.demand().is_urgent:
                return
            self._agent.calls.cancel("Poll")
            self._want = _NO_POLL
        self._poll_soon()

    def _poll_soon(self) -> None:
        if self._agent.session is None or self._is_due or self._want != _NO_POLL:
            return
        self._is_due = True
        delay_s = 0.001 if self._agent.runner.demand().is_urgent else _PATIENCE_S
        self._agent.after(delay_s, self._agent.calls.in_turn(self._poll))

    def _poll(self) -> None:
        agent = self._agent
        assert agent.session is not None
        self._is_due = False
        self._seq += 1
        self._want = agent.runner.demand().want
        is_empty, timing = agent.runner.is_empty, agent.watch.timing
        assert timing.quiet is not None
        wait = timing.quiet.poll_wait if is_empty else timing.poll_wait
        request = PollCall(
            node_key=agent.node_key,
            session=agent.session,
            poll_seq=self._seq,
            want=self._want,
            wait=wait,
            is_empty=is_empty,
        )
        agent.calls.persist(
            "Poll",
            request,
            self._polled,
            timeout_s=wait.total_seconds() + CALL_TIMEOUT_S,
            on_send=self._note_sent,
            is_wanted=lambda: request.poll_seq == self._seq and self._want != _NO_POLL,
        )

    def _note_sent(self) -> None:
        self._sent_at_s = self._agent.boot_s()

    def _polled(self, reply: Polled) -> None:
        agent = self._agent
        self._want = _NO_POLL
        agent.watch.renewed(agent.runner, reply.timing or agent.watch.timing, sent_at_s=self._sent_at_s)
        if reply.batches:
            agent.runner.accept(reply.batches)
            failpoints.reach("agent.poll.after_accept")
        if reply.stops:
            agent.stop(reply.stops)
        self._poll_soon()
