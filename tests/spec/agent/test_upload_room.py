"""How much of what is uploaded lies in memory, whatever its size."""

from threading import Thread

from windlass_agent.mounts.s3_sending import PART_BYTES, BufferRoom, PartedUpload
from windlass_proto.model.storage import parse_object_url

ALL = 8


def test_who_wants_more_than_there_is_waits_until_it_was_given_back() -> None:
    room = BufferRoom()
    room.take(ALL)
    waiting = Thread(target=room.take, args=(2,), daemon=True)
    waiting.start()
    room.give_back(1)
    waiting.join(0.2)
    assert waiting.is_alive()
    room.give_back(1)
    waiting.join(30)
    assert not waiting.is_alive()


def test_parts_of_a_very_large_object_grow_but_not_beyond_the_room() -> None:
    upload = PartedUpload(target=parse_object_url("oss://b/large"), upload_id="1")
    size, sizes = 0, set()
    for _ in range(10_000):
        part = upload.next_part()
        upload.parts.append(None)  # type: ignore[arg-type]  # only their number counts
        sizes.add(part)
        size += part * PART_BYTES
    assert sizes == {1, 2, 4, 8}
    assert size > 490 << 30
