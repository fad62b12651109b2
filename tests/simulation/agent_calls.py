"""How a simulated agent calls its coordinator: again and again within a session, forgotten with it."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.network import Call
from tests.simulation.settings import CALL_TIMEOUT_S
from windlass_agent.link.lease_watch import LeaseWatch
from windlass_proto.errors import Denied, SessionLost, Unavailable, WindlassError

if TYPE_CHECKING:
    from tests.simulation.agent import Agent


class SessionCalls:
    """The calls of one agent process, one of each method at a time."""

    def __init__(self, agent: "Agent", watch: LeaseWatch) -> None:
        self._agent, self._watch = agent, watch
        self._turn = 0
        self._latest: dict[str, Call] = {}
        self.hears_nothing = False
        """The last outcome was that the coordinator could not be reached."""

    def begin(self) -> None:
        """A session is open: what waits for an earlier one does nothing any more."""
        self._turn += 1

    def end(self) -> None:
        """The session is over, and nobody wants to know what was asked in it."""
        self._turn += 1
        for method in self._latest:
            self.cancel(method)
        self._latest = {}

    def cancel(self, method: str) -> None:
        self._latest[method].cancel()

    def in_turn(self, what: Callable[..., None]) -> Callable[..., None]:
        """Does nothing once the session is another one."""
        turn = self._turn

        def do(*values: Any) -> None:
            if turn == self._turn:
                what(*values)

        return do

    def call(
        self,
        method: str,
        request: Any,
        on_reply: Callable[[Any], None],
        on_error: Callable[[WindlassError], None],
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        """Once; not at all by a machine that has slept through its session."""
        try:
            self._watch.check()
        except SessionLost as overslept:
            self._agent.after(0.0, partial(on_error, overslept))
            return

        def replied(reply: Any) -> None:
            self.hears_nothing = False
            on_reply(reply)

        def failed(error: WindlassError) -> None:
            self.hears_nothing = isinstance(error, Unavailable)
            on_error(error)

        self._latest[method] = self._agent.network.call(
            self._agent,
            self._agent.node.path,
            method,
            request,
            timeout_s=timeout_s,
            on_reply=replied,
            on_error=failed,
        )

    def persist(
        self,
        method: str,
        request: Any,
        on_reply: Callable[[Any], None],
        *,
        failures: int = 0,
        timeout_s: float = CALL_TIMEOUT_S,
        on_send: Callable[[], None] = lambda: None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """The same request again and again while the coordinator cannot be reached, in this session, unless
        it is abandoned meanwhile."""
        if not is_wanted():
            return
        on_send()

        def failed(error: WindlassError) -> None:
            if isinstance(error, SessionLost | Denied):
                self._agent.lose_session()
                return
            assert isinstance(error, Unavailable), f"{method} of {self._agent.name} was refused: {error}"
            again = partial(
                self.persist,
                method,
                request,
                on_reply,
                failures=failures + 1,
                timeout_s=timeout_s,
                on_send=on_send,
                is_wanted=is_wanted,
            )
            self._agent.after(self._agent.pause_s(failures + 1), self.in_turn(again))

        self.call(method, request, self.in_turn(on_reply), self.in_turn(failed), timeout_s)
