"""Which piece of output is sent next, over real spools and without a coordinator."""

from pathlib import Path

from windlass_agent.link.log_streams import LogPiece, LogStreams
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey


class Sender:
    """A shipper that sends when it is told to, and a coordinator that answers when it is told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.complete: list[AttemptRef] = []
        self.streams = LogStreams(
            chunk_bytes=1 << 20, attempt_bytes=64 << 20, directory_of=self.directory_of, clock=lambda: 1000.0
        )
        self.streams.on_complete = self.complete.append

    def directory_of(self, ref: AttemptRef) -> Path:
        return self.root / f"{ref.index}"

    def writes(self, ref: AttemptRef, text: str) -> None:
        self.directory_of(ref).mkdir(exist_ok=True)
        with (self.directory_of(ref) / "stdout.000000").open("a") as spool:
            spool.write(text)

    async def sends(self) -> LogPiece:
        await self.streams.look()
        (piece,) = await self.streams.next_pieces()
        return piece

    async def is_answered(self, piece: LogPiece) -> None:
        await self.streams.answered(piece, piece.offset + len(piece.data))


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
    assert await sender.streams.next_pieces() == []


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
    assert await sender.streams.next_pieces() == []


async def test_what_was_dropped_is_not_sent(tmp_path: Path) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.streams.watch(ref, keeps_spool=False)
    sender.writes(ref, "line\n")
    sender.streams.ended(ref, (5, 0))

    sender.streams.drop(ref)

    assert await sender.streams.next_pieces() == []
    assert sender.complete == []


async def test_thousands_of_short_outputs_are_read_many_at_once(tmp_path: Path) -> None:
    sender = Sender(tmp_path)
    for index in range(300):
        sender.streams.watch(an_attempt(index), keeps_spool=False)
        sender.writes(an_attempt(index), "line\n")
        sender.streams.ended(an_attempt(index), (5, 0))
    await sender.streams.look()
    batches = [await sender.streams.next_pieces() for _ in range(4)]
    assert [len(batch) for batch in batches] == [128, 128, 44, 0]
    assert sender.streams.backlog_bytes == 300 * 5
    for piece in (piece for batch in batches for piece in batch):
        await sender.is_answered(piece)
    assert (len(sender.complete), sender.streams.backlog_bytes) == (300, 0)


async def test_nothing_more_is_sent_of_revoked_output_and_its_spool_does_not_fill(tmp_path: Path) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.streams.watch(ref, keeps_spool=False)
    sender.writes(ref, "line\n")
    piece = await sender.sends()
    await sender.streams.answered(piece, 0, revoked=True)
    for number in range(3):
        (tmp_path / "0" / f"stdout.{number:06d}").write_bytes(bytes(8 << 20))
    await sender.streams.look()
    assert await sender.streams.next_pieces() == []
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["stdout.000002"]
    assert sender.complete == []
    assert not sender.streams.ended(ref, (24 << 20, 0))
    assert sender.complete == [ref]


async def test_beyond_the_coordinators_limit_the_rest_is_one_gap_at_the_end(tmp_path: Path) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.streams.watch(ref, keeps_spool=False)
    sender.writes(ref, "0123456789")
    piece = await sender.sends()
    await sender.streams.answered(piece, 4, quota=True)
    sender.writes(ref, "0123456789")
    await sender.streams.look()
    assert await sender.streams.next_pieces() == []
    assert sender.streams.ended(ref, (20, 0))
    gap = await sender.sends()
    assert (gap.offset, gap.gap_bytes, gap.data) == (4, 16, b"")
    await sender.streams.answered(gap, 20, quota=True)
    assert sender.complete == [ref]


async def test_a_coordinator_that_takes_not_even_the_gap_is_asked_once(tmp_path: Path) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.streams.watch(ref, keeps_spool=False)
    sender.writes(ref, "0123456789")
    await sender.streams.answered(await sender.sends(), 4, quota=True)
    sender.streams.ended(ref, (20, 0))
    await sender.streams.answered(await sender.sends(), 4, quota=True)
    assert await sender.streams.next_pieces() == []
    assert sender.complete == [ref]


async def test_uploaded_segments_are_deleted_at_once(tmp_path: Path) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.streams.watch(ref, keeps_spool=False)
    sender.directory_of(ref).mkdir()
    for number in range(2):
        (tmp_path / "0" / f"stdout.{number:06d}").write_bytes(bytes(8 << 20))
    for _ in range(8):
        await sender.is_answered(await sender.sends())
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["stdout.000001"]


async def test_an_agent_that_starts_anew_goes_on_where_the_deleted_segments_ended(tmp_path: Path) -> None:
    """What was deleted is on the coordinator: it is no gap."""
    sender, ref = Sender(tmp_path), an_attempt()
    sender.directory_of(ref).mkdir()
    (tmp_path / "0" / "stdout.000002").write_bytes(b"rest")
    sender.streams.watch(ref, keeps_spool=False)
    assert sender.streams.ended(ref, ((16 << 20) + 4, 0))
    assert await sender.streams.next_pieces() == []
    piece = await sender.sends()
    assert (piece.offset, piece.data, piece.gap_bytes) == (16 << 20, b"rest", 0)
    await sender.is_answered(piece)
    assert sender.complete == [ref]


async def test_what_is_neither_here_nor_there_is_a_gap_up_to_what_is_here(tmp_path: Path) -> None:
    sender, ref = Sender(tmp_path), an_attempt()
    sender.directory_of(ref).mkdir()
    (tmp_path / "0" / "stdout.000002").write_bytes(b"rest")
    sender.streams.watch(ref, keeps_spool=False)
    sender.streams.ended(ref, ((16 << 20) + 4, 0))
    assert await sender.streams.next_pieces() == []
    await sender.streams.answered(await sender.sends(), 100)
    gap = await sender.sends()
    assert (gap.offset, gap.gap_bytes, gap.gap_reason) == (100, (16 << 20) - 100, "missing on the node")
    await sender.streams.answered(gap, 16 << 20)
    assert (await sender.sends()).data == b"rest"
