"""Which piece of output is sent next, over real spools and without a coordinator."""

from pathlib import Path

from windlass_agent.link.log_streams import LogPiece, LogStreams
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey


class Sender:
    """A shipper that sends when it is told to, and a coordinator that answers when it is told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.complete: list[AttemptRef] = []
        self.streams = LogStreams(chunk_bytes=1 << 20, directory_of=self.directory_of, clock=lambda: 1000.0)
        self.streams.on_complete = self.complete.append

    def directory_of(self, ref: AttemptRef) -> Path:
        return self.root / f"{ref.index}"

    def writes(self, ref: AttemptRef, text: str) -> None:
        self.directory_of(ref).mkdir(exist_ok=True)
        with (self.directory_of(ref) / "stdout.000000").open("a") as spool:
            spool.write(text)

    async def sends(self) -> LogPiece:
        await self.streams.look()
        piece = await self.streams.next_piece()
        assert piece is not None
        return piece

    async def is_answered(self, piece: LogPiece) -> None:
        await self.streams.answered(piece, piece.offset + len(piece.data), revoked=False)


def an_attempt(index: int = 0) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(1), index=index, attempt=1, fence=Fence(1))


async def test_output_that_had_all_arrived_before_the_command_ended_is_complete_at_its_end(
    tmp_path: Path,
) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.streams.watch(ref, keeps_spool=False)
    sender.writes(ref, "line\n")
    await sender.is_answered(await sender.sends())
    assert sender.complete == []

    assert not sender.streams.ended(ref, (5, 0))

    assert sender.complete == [ref]
    assert await sender.streams.next_piece() is None


async def test_what_was_sent_and_not_answered_is_sent_again_after_a_break(tmp_path: Path) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.streams.watch(ref, keeps_spool=False)
    sender.writes(ref, "line\n")
    assert sender.streams.ended(ref, (5, 0))
    lost = await sender.sends()

    sender.streams.start_over()

    again = await sender.sends()
    assert (again.offset, again.data) == (lost.offset, lost.data) == (0, b"line\n")
    await sender.is_answered(again)
    assert sender.complete == [ref]


async def test_streams_take_turns(tmp_path: Path) -> None:
    sender = Sender(tmp_path)
    refs = [an_attempt(index) for index in range(3)]
    for ref in refs:
        sender.streams.watch(ref, keeps_spool=False)
        sender.writes(ref, "x" * (2 << 20))
        sender.streams.ended(ref, (2 << 20, 0))

    sent = [await sender.sends() for _ in range(6)]

    assert [piece.stream.ref.index for piece in sent] == [0, 1, 2, 0, 1, 2]
    assert await sender.streams.next_piece() is None


async def test_what_was_dropped_is_not_sent(tmp_path: Path) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.streams.watch(ref, keeps_spool=False)
    sender.writes(ref, "line\n")
    sender.streams.ended(ref, (5, 0))

    sender.streams.drop(ref)

    assert await sender.streams.next_piece() is None
    assert sender.complete == []
