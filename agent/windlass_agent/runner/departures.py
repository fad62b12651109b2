"""Attempts on their way out: to be given back, or kept only until the coordinator says "forget"."""

import asyncio
from collections import OrderedDict
from itertools import islice

from windlass_proto.model.ids import AttemptRef

_REMEMBERED_REFUSALS = 1000
"""Attempts that were stopped or fenced before their assignment arrived."""


class Departures:
    def __init__(self) -> None:
        self._releasing: dict[AttemptRef, None] = {}
        self._deletable: dict[AttemptRef, None] = {}
        self._refused: OrderedDict[AttemptRef, None] = OrderedDict()
        self.release_due = asyncio.Event()
        """Set when there is something to give back."""

    def give_back(self, ref: AttemptRef) -> None:
        """It has not started, and another node may have it."""
        self._releasing[ref] = None
        self.release_due.set()

    def note_deletable(self, ref: AttemptRef) -> None:
        """Everything of it is told and uploaded."""
        self._deletable[ref] = None

    def refuse(self, ref: AttemptRef) -> None:
        """Its assignment, if it is still on the way, comes too late."""
        self._refused[ref] = None
        if len(self._refused) > _REMEMBERED_REFUSALS:
            self._refused.popitem(last=False)

    def is_refused(self, ref: AttemptRef) -> bool:
        return ref in self._refused

    @property
    def is_releasing(self) -> bool:
        """Something waits to be given back."""
        return bool(self._releasing)

    def to_release(self, limit: int) -> list[AttemptRef]:
        return list(islice(self._releasing, limit))

    def deletable(self, limit: int) -> list[AttemptRef]:
        return list(islice(self._deletable, limit))

    def answered(self, ref: AttemptRef) -> None:
        """The coordinator has said whether it takes it back."""
        self._releasing.pop(ref, None)

    def gone(self, ref: AttemptRef) -> None:
        self._releasing.pop(ref, None)
        self._deletable.pop(ref, None)
