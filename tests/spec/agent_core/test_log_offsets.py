"""What of a log stream is sent when, and what a reply means."""

from windlass_agent.core.log_offsets import FLUSH_BYTES, StreamOffsets


def a_stream(produced: int, *, sent: int = 0, now_s: float = 0.0) -> StreamOffsets:
    stream = StreamOffsets(sent=sent, durable=sent)
    stream.saw(produced, now_s=now_s)
    return stream


def test_the_first_bytes_of_a_stream_are_sent_when_they_are_seen() -> None:
    assert a_stream(1).is_due(0.0)


def test_later_bytes_wait_a_second_for_company() -> None:
    stream = a_stream(110, sent=100)
    assert not stream.is_due(0.9)
    assert stream.is_due(1.0)


def test_many_bytes_are_sent_at_once() -> None:
    assert a_stream(100 + FLUSH_BYTES, sent=100).is_due(0.0)


def test_the_rest_is_sent_at_once_when_the_command_has_ended() -> None:
    stream = a_stream(110, sent=100)
    stream.end = 110
    assert stream.is_due(0.0)


def test_nothing_is_sent_when_nothing_is_new() -> None:
    assert not a_stream(100, sent=100).is_due(100.0)


def test_a_stream_is_complete_when_its_end_is_on_disk() -> None:
    stream = a_stream(100)
    piece = stream.sending(100, now_s=0)
    stream.answered(piece, 100, now_s=1)
    assert not stream.is_complete
    stream.end = 100
    assert stream.is_complete


def test_an_empty_stream_is_complete_when_its_command_ends() -> None:
    assert StreamOffsets(end=0).is_complete


def test_a_reply_below_what_was_sent_sends_again_from_there() -> None:
    stream = a_stream(300)
    piece = stream.sending(300, now_s=0)
    stream.answered(piece, 100, now_s=1)
    assert (stream.sent, stream.durable) == (100, 100)


def test_pieces_that_were_under_way_at_a_rewind_cause_no_second_one() -> None:
    stream = a_stream(300)
    first, second = stream.sending(100, now_s=0), stream.sending(200, now_s=0)
    stream.answered(first, 0, now_s=1)
    again = stream.sending(300, now_s=1)
    stream.answered(second, 0, now_s=1)
    assert stream.sent == 300
    stream.answered(again, 300, now_s=2)
    assert stream.durable == 300


def test_a_reply_above_what_was_sent_skips_what_is_stored_already() -> None:
    stream = a_stream(100)
    piece = stream.sending(100, now_s=0)
    stream.answered(piece, 250, now_s=1)
    assert (stream.sent, stream.durable) == (250, 250)


def test_after_a_broken_connection_everything_unanswered_is_sent_again() -> None:
    stream = a_stream(300)
    first, second = stream.sending(100, now_s=0), stream.sending(200, now_s=0)
    stream.answered(first, 100, now_s=1)
    stream.start_over(now_s=2)
    assert stream.sent == 100
    stream.answered(second, 100, now_s=3)
    assert stream.sent == 100


def test_a_revoked_stream_is_complete_when_its_command_ends_and_sends_nothing() -> None:
    stream = a_stream(300)
    stream.revoked = True
    assert not stream.is_complete
    stream.end = 300
    assert stream.is_complete
    assert not stream.is_due(100)


def test_what_the_coordinator_stores_no_more_is_told_at_the_end_only() -> None:
    stream = a_stream(300)
    piece = stream.sending(300, now_s=0)
    stream.is_refused = True
    stream.answered(piece, 200, now_s=1)
    assert not stream.has_unsent
    stream.end = 300
    assert stream.is_due(1)
    assert stream.sent == 200
