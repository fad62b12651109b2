"""Output of many instances on one screen: whole lines, each with its origin."""

from windlass.cli.follow import LineSplitter
from windlass_proto.model.status import LogChunk


def shown(*chunks: LogChunk) -> list[bytes]:
    lines: list[bytes] = []
    splitter = LineSplitter(lines.append)
    for chunk in chunks:
        splitter.feed(chunk)
    splitter.finish()
    return lines


def test_lines_cut_by_chunks_are_shown_whole() -> None:
    chunks = [
        LogChunk(offset=0, data=b"one\ntw"),
        LogChunk(offset=6, data=b"o\n"),
        LogChunk(offset=8, data=b"end"),
    ]
    assert shown(*chunks) == [b"one\n", b"two\n", b"end\n"]


def test_missing_bytes_are_told_where_they_are_missing() -> None:
    chunks = [LogChunk(offset=0, data=b"a"), LogChunk(offset=1, data=b"b\n", gap_bytes=9, gap_reason="quota")]
    assert shown(*chunks) == [b"a\n", b"(9 bytes are missing: quota)\n", b"b\n"]


def test_a_line_without_end_is_not_held_back_for_ever() -> None:
    assert shown(LogChunk(offset=0, data=b"x" * 70_000), LogChunk(offset=70_000, data=b"y\n"))[0] == (
        b"x" * 70_000 + b"\n"
    )
