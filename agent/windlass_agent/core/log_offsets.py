"""Where the upload of one log stream stands (protocol.md, section 8).

Offsets count the bytes that the command produced. Replies come in the order of requests; a reply below what
was sent means: send again from there. Times are seconds of the boot clock, passed in.
"""

from dataclasses import dataclass

FLUSH_BYTES = 256 * 1024
"""This much is sent at once."""
FLUSH_AFTER_S = 1.0
"""Less is sent after this time at the latest."""
FIRST_FLUSH_AFTER_S = 0.0
"""The first bytes of a stream go out when they are seen, so that following feels live."""


@dataclass(slots=True, kw_only=True)
class StreamOffsets:
    durable: int = 0
    """Everything below is on the coordinator's disk."""
    sent: int = 0
    """Everything below has been sent; not below `durable`."""
    produced: int = 0
    """What the spool is known to hold, or to have dropped."""
    end: int | None = None
    """Where the stream ends; None while the command runs."""
    revoked: bool = False
    """Nobody wants it any more."""
    is_refused: bool = False
    """The coordinator stores no more of it; what it has not got is told as one gap when the end is known."""
    waiting_since_s: float | None = None
    """When the oldest unsent byte was seen."""
    _rewinds: int = 0

    @property
    def is_complete(self) -> bool:
        return self.end is not None and (self.revoked or self.durable >= self.end)

    @property
    def is_unwanted(self) -> bool:
        """Nothing of it has to be kept for the coordinator."""
        return self.revoked or self.is_refused

    def saw(self, produced: int, *, now_s: float) -> None:
        """The spool holds bytes up to `produced`."""
        self.produced = max(self.produced, produced)
        if self.produced > self.sent and self.waiting_since_s is None:
            self.waiting_since_s = now_s

    @property
    def has_unsent(self) -> bool:
        """Whether something is to be sent, now or later."""
        if self.revoked or (self.is_refused and self.end is None):
            return False
        return self.produced > self.sent

    def is_due(self, now_s: float) -> bool:
        """Whether something should be sent now."""
        if not self.has_unsent:
            return False
        if self.end is not None or self.produced - self.sent >= FLUSH_BYTES or self.waiting_since_s is None:
            return True
        patience_s = FLUSH_AFTER_S if self.sent else FIRST_FLUSH_AFTER_S
        return now_s - self.waiting_since_s >= patience_s

    def sending(self, length: int, *, now_s: float) -> "SentPiece":
        """`length` bytes (or a gap of that length) are on their way from `sent` on."""
        self.sent += length
        self.waiting_since_s = now_s if self.produced > self.sent else None
        return SentPiece(end=self.sent, rewinds=self._rewinds)

    def answered(self, piece: "SentPiece", durable_end: int, *, now_s: float) -> None:
        """The reply to `piece`; pieces sent before a rewind cannot cause another one."""
        if piece.rewinds != self._rewinds:
            self.durable = max(self.durable, durable_end)
        elif durable_end >= piece.end:
            self.durable = durable_end
        else:
            # Lower than what was taken for stored: it was restored from a backup, or files were lost here.
            self.durable = durable_end
            self._rewinds += 1
            self.sent = self.durable
            self.waiting_since_s = now_s
        self.sent = max(self.sent, self.durable)
        self.produced = max(self.produced, self.sent)

    def resume(self, offset: int, *, now_s: float) -> None:
        """What lies below is not here any more: an earlier life of the agent knew it on the coordinator."""
        self.durable = self.sent = offset
        self.waiting_since_s = now_s if self.produced > self.sent else None

    def start_over(self, *, now_s: float) -> None:
        """The connection broke: what was not answered is sent again."""
        self._rewinds += 1
        self.sent = self.durable
        self.waiting_since_s = now_s if self.produced > self.sent else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPiece:
    """A request whose reply has not come yet."""

    end: int
    rewinds: int
    """How often the stream had been rewound when it was sent."""
