"""The life of an attempt on its node: the order of its events, and which of them still have to be told.

A later event implies the earlier ones (protocol.md, section 2), so an event that was not sent yet is dropped
when a later one of the same attempt comes, unless it carries the result. Sequence numbers follow from the
kind of event alone; nothing about them has to be remembered over a restart.
"""

from collections.abc import Iterable

from windlass_proto.model.events import (
    AttemptEvent,
    Exited,
    Finalized,
    FinalizeFailed,
    Happening,
    LostOnNode,
    PrepareFailed,
    Preparing,
    Started,
    StoppedEarly,
)
from windlass_proto.model.ids import AttemptRef

_SEQ: dict[type, int] = {
    Preparing: 1,
    Started: 2,
    PrepareFailed: 3,
    StoppedEarly: 3,
    LostOnNode: 3,
    Exited: 3,
    Finalized: 4,
    FinalizeFailed: 4,
}
RESULT_SEQ = 3
"""From this number on an event carries a result and is never dropped."""


def seq_of(what: Happening) -> int:
    """The event's number in its attempt."""
    return _SEQ[type(what)]


def is_last(what: Happening) -> bool:
    """Whether nothing more will be told about the attempt."""
    seq = _SEQ[type(what)]
    return seq > RESULT_SEQ or (seq == RESULT_SEQ and not (isinstance(what, Exited) and what.finalizing))


class PendingEvents:
    """Events that the coordinator has not answered yet, in the order in which they must be told."""

    def __init__(self) -> None:
        self._waiting: dict[AttemptRef, tuple[AttemptEvent, ...]] = {}
        self._results = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_result(self) -> bool:
        """Whether a result waits; mere progress may be told later."""
        return self._results > 0

    def add(self, ref: AttemptRef, what: Happening) -> None:
        """Ignores what a waiting event implies already; drops what the new one implies."""
        seq = _SEQ[type(what)]
        event = AttemptEvent(ref=ref, seq=seq, what=what)
        earlier = self._waiting.get(ref)
        if seq >= RESULT_SEQ:
            self._results += 1
        if earlier is None:
            self._waiting[ref] = (event,)
            return
        if earlier[-1].seq >= seq:
            if seq >= RESULT_SEQ and all(one.seq > seq for one in earlier):
                self._waiting[ref] = (event, *earlier)  # no result is implied: this one is told again
            else:
                self._results -= seq >= RESULT_SEQ
            return
        kept = tuple(one for one in earlier if one.seq >= RESULT_SEQ)
        self._waiting[ref] = (*kept, event)

    def take(self, limit: int) -> list[AttemptEvent]:
        """Removes and returns the events of up to `limit` attempts, oldest first."""
        if len(self._waiting) <= limit:
            taken = [event for events in self._waiting.values() for event in events]
            self._waiting.clear()
            self._results = 0
            return taken
        taken = []
        for ref in list(self._waiting)[:limit]:
            taken += self._waiting.pop(ref)
        self._results -= sum(event.seq >= RESULT_SEQ for event in taken)
        return taken

    def put_back(self, events: Iterable[AttemptEvent]) -> None:
        """After a report without an answer: they come first again, less what newer events imply."""
        newer, self._waiting, self._results = self._waiting, {}, 0
        for event in (*events, *(one for several in newer.values() for one in several)):
            self.add(event.ref, event.what)

    def drop(self, ref: AttemptRef) -> None:
        """The attempt is fenced or forgotten: nobody wants to know any more."""
        dropped = self._waiting.pop(ref, ())
        self._results -= sum(event.seq >= RESULT_SEQ for event in dropped)
