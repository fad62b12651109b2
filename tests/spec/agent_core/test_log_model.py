"""One stream between an agent and a coordinator that both forget and fail: the bytes are a prefix (I13).

The coordinator is the rule of protocol.md, section 8, in four lines; requests and replies are queues.
"""

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.examples import examples
from windlass_agent.core.log_offsets import SentPiece, StreamOffsets


class Upload(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stream = StreamOffsets()
        self.now_s = 0.0
        self.produced = 0
        self.kept_from = 0
        """What lies below has been dropped from the spool: it can only be sent as a gap."""
        self.stored = 0
        self.gaps = 0
        self.lost = 0
        """Bytes that were dropped before they were stored."""
        self.requests: deque[tuple[SentPiece, int, int, bool]] = deque()
        self.replies: deque[tuple[SentPiece, int]] = deque()
        self.most_acknowledged = 0

    @precondition(lambda self: self.stream.end is None)
    @rule(count=st.integers(1, 300_000))
    def write(self, count: int) -> None:
        self.produced += count
        self.stream.saw(self.produced, now_s=self.now_s)

    @precondition(lambda self: self.stream.end is None)
    @rule()
    def end(self) -> None:
        self.stream.saw(self.produced, now_s=self.now_s)
        self.stream.end = self.produced

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(share=st.floats(0, 1))
    def spool_is_full(self, share: float) -> None:
        """Some of what was not sent yet is dropped."""
        upto = self.stream.sent + int((self.produced - self.stream.sent) * share)
        if upto > max(self.kept_from, self.stream.sent):
            self.kept_from = upto

    @precondition(lambda self: self.stream.has_unsent)
    @rule(most=st.integers(1, 200_000))
    def send(self, most: int) -> None:
        if not self.stream.is_due(self.now_s):
            return
        begin = self.stream.sent
        is_gap = begin < self.kept_from
        end = self.kept_from if is_gap else min(self.stream.produced, begin + most)
        piece = self.stream.sending(end - begin, now_s=self.now_s)
        assert piece.end == self.stream.sent == end
        self.requests.append((piece, begin, end, is_gap))

    @precondition(lambda self: self.requests)
    @rule()
    def coordinator_takes_one(self) -> None:
        piece, begin, end, _ = self.requests.popleft()
        if begin <= self.stored < end:
            self.stored = end
        self.replies.append((piece, self.stored))

    @precondition(lambda self: self.replies)
    @rule()
    def agent_hears(self) -> None:
        piece, durable_end = self.replies.popleft()
        self.stream.answered(piece, durable_end, now_s=self.now_s)

    @rule()
    def connection_breaks(self) -> None:
        """Any part of what was under way may have arrived; no reply has."""
        self.requests.clear()
        self.replies.clear()
        self.stream.start_over(now_s=self.now_s)

    @rule()
    def agent_restarts(self) -> None:
        """It knows what its spool holds, and begins where the spool begins; the rest it is told."""
        ended = self.stream.end
        self.requests.clear()
        self.replies.clear()
        self.stream = StreamOffsets(end=ended)
        self.stream.saw(self.produced, now_s=self.now_s)
        self.most_acknowledged = 0

    @invariant()
    def nothing_is_acknowledged_that_is_not_stored(self) -> None:
        stream = self.stream
        assert stream.durable <= self.stored <= self.produced
        assert stream.durable <= stream.sent <= max(stream.produced, self.stored)
        assert stream.durable >= self.most_acknowledged, "what was acknowledged stays so"
        self.most_acknowledged = stream.durable
        assert stream.is_complete == (stream.end is not None and stream.durable >= stream.end)

    def teardown(self) -> None:
        """On a good connection everything arrives, in a bounded number of steps."""
        self.end()
        for _ in range(1_000):
            self.now_s += 1.0
            if self.stream.is_complete:
                break
            if self.stream.has_unsent:
                self.send(100_000)
            while self.requests:
                self.coordinator_takes_one()
            while self.replies:
                self.agent_hears()
        assert self.stream.is_complete
        assert self.stored == self.produced
        assert not self.stream.has_unsent


TestUpload = Upload.TestCase
TestUpload.settings = examples(50, steps=40)
