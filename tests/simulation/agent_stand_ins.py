"""What stands where a simulated agent's runner has something of the event loop or of the disk."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from windlass_agent.spool.intents import IntentJournal, SharedPart
from windlass_proto.model.ids import AttemptRef

if TYPE_CHECKING:
    from tests.simulation.node import Node


class Signal:
    """Stands where the runner has an event that a loop waits for."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def set(self) -> None:
        self._tell()

    def clear(self) -> None:
        """Nobody waits."""


class Intents:
    """The real journal of intents; the ledger knows what is on disk, whatever happens after the write."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._journal = IntentJournal(node.disk.intents, compact_bytes=4096)

    @property
    def live(self) -> dict[AttemptRef, SharedPart]:
        return dict(self._journal.live)

    @property
    def gpus(self) -> dict[AttemptRef, tuple[str, ...]]:
        return dict(self._journal.gpus)

    def give_gpus(self, ref: AttemptRef, gpus: Sequence[str]) -> None:
        self._journal.give_gpus(ref, gpus)

    def assign(self, shared: SharedPart, refs: Sequence[AttemptRef]) -> None:
        self._node.ledger.intent_written(self._node, refs)
        self._journal.assign(shared, refs)

    def forget(self, refs: Iterable[AttemptRef]) -> None:
        gone = list(refs)
        for ref in gone:
            self._node.ledger.attempt_let_go(self._node, ref)
        self._journal.forget(gone)

    def close(self) -> None:
        self._journal.close()
