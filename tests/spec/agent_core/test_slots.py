"""Which slot runs which attempt."""

from datetime import timedelta

from windlass_agent.core.slots import HandOverLimits, SlotBook
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey
from windlass_proto.model.resources import NodeCapacity, Resources

ONE = Resources()


def a_book(
    slots: int = 2, *, most: int = 64, cpu: float = 8, memory_bytes: int = 1000, gpus: tuple[str, ...] = ()
) -> SlotBook:
    capacity = NodeCapacity(cpu=cpu, memory_bytes=memory_bytes, slots=slots, gpus=len(gpus))
    return SlotBook(capacity, HandOverLimits(ahead=timedelta(milliseconds=30), most=most), gpus=gpus)


def an_attempt(index: int) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(7), index=index, attempt=1, fence=Fence(3))


def place(
    book: SlotBook,
    index: int,
    *,
    needs: Resources = ONE,
    expected_s: float | None = 0.001,
    exclusive: bool = False,
    now_s: float = 0.0,
) -> int | None:
    return book.place(an_attempt(index), needs, expected_s=expected_s, exclusive=exclusive, now_s=now_s)


def test_attempts_go_to_free_slots_first() -> None:
    book = a_book(slots=2)
    assert [place(book, index) for index in range(2)] == [0, 1]
    assert book.free == 0


def test_short_attempts_queue_behind_others_where_least_is_queued() -> None:
    book = a_book(slots=2)
    assert [place(book, index) for index in range(5)] == [0, 1, 0, 1, 0]
    assert book.queued == 3


def test_what_queues_in_a_keeper_is_bounded_by_time() -> None:
    book = a_book(slots=1)
    assert [place(book, index, expected_s=0.014) for index in range(3)] == [0, 0, None]


def test_what_queues_in_a_keeper_is_bounded_by_number() -> None:
    book = a_book(slots=1, most=3)
    assert [place(book, index, expected_s=0.0001) for index in range(4)] == [0, 0, 0, None]


def test_a_full_keeper_is_filled_again_when_half_of_its_queue_has_run() -> None:
    book = a_book(slots=1)
    assert [place(book, index, expected_s=0.006) for index in range(6)] == [0] * 5 + [None]
    book.ended(0, an_attempt(0), now_s=0)
    book.ended(0, an_attempt(1), now_s=0)
    assert place(book, 6, expected_s=0.006) is None
    book.ended(0, an_attempt(2), now_s=0)
    assert [place(book, index, expected_s=0.006) for index in (7, 8, 9, 10)] == [0, 0, 0, None]


def test_an_attempt_of_unknown_run_time_queues_behind_nothing() -> None:
    book = a_book(slots=1)
    place(book, 0)
    assert place(book, 1, expected_s=None) is None


def test_nothing_queues_behind_a_command_that_runs_long() -> None:
    book = a_book(slots=1)
    place(book, 0)
    assert place(book, 1, now_s=0.031) is None


def test_an_exclusive_attempt_neither_queues_nor_is_queued_behind() -> None:
    book = a_book(slots=1)
    place(book, 0, exclusive=True)
    assert place(book, 1) is None
    book.ended(0, an_attempt(0), now_s=1)
    place(book, 2)
    assert place(book, 3, exclusive=True) is None


def test_an_attempt_of_two_slots_waits_until_two_are_free() -> None:
    book = a_book(slots=3)
    place(book, 0)
    place(book, 1)
    assert place(book, 2, needs=Resources(slots=2), expected_s=None) is None
    book.ended(0, an_attempt(0), now_s=1)
    assert place(book, 2, needs=Resources(slots=2)) == 0
    assert book.free == 0
    book.ended(0, an_attempt(2), now_s=2)
    assert book.free == 2


def test_a_slot_that_helps_another_takes_nothing_itself() -> None:
    book = a_book(slots=2)
    place(book, 0, needs=Resources(slots=2))
    assert place(book, 1) == 0  # behind it, in its own keeper, never in the helper's


def test_cores_and_memory_are_never_promised_twice() -> None:
    book = a_book(slots=3, cpu=4, memory_bytes=1000)
    assert place(book, 0, needs=Resources(cpu=3, memory_bytes=400)) == 0
    assert place(book, 1, needs=Resources(cpu=2), expected_s=None) is None
    assert place(book, 2, needs=Resources(memory_bytes=700), expected_s=None) is None
    assert place(book, 3, needs=Resources(cpu=1, memory_bytes=600)) == 1
    book.ended(0, an_attempt(0), now_s=1)
    assert place(book, 4, needs=Resources(cpu=3, memory_bytes=400)) == 0


def test_what_queues_must_fit_into_what_the_running_one_took() -> None:
    book = a_book(slots=1, cpu=8)
    place(book, 0, needs=Resources(cpu=2))
    assert place(book, 1, needs=Resources(cpu=3)) is None
    assert place(book, 2, needs=Resources(cpu=1)) == 0


def test_a_slot_is_free_when_its_whole_queue_has_ended() -> None:
    book = a_book(slots=1)
    place(book, 0)
    place(book, 1)
    book.ended(0, an_attempt(0), now_s=1)
    assert (book.free, book.queued) == (0, 0)
    book.ended(0, an_attempt(1), now_s=2)
    assert (book.free, book.queued) == (1, 0)


def test_an_end_that_is_told_twice_counts_once() -> None:
    book = a_book(slots=1)
    place(book, 0)
    book.ended(0, an_attempt(0), now_s=1)
    book.ended(0, an_attempt(0), now_s=1)
    assert book.free == 1


def test_what_waits_behind_a_long_command_is_found() -> None:
    book = a_book(slots=2)
    for index in range(3):
        place(book, index)
    assert book.stuck(now_s=0.9, patience_s=1) == []
    assert book.stuck(now_s=1.1, patience_s=1) == [(0, an_attempt(2))]


def test_patience_begins_anew_with_each_command() -> None:
    book = a_book(slots=1)
    for index in range(3):
        place(book, index)
    book.ended(0, an_attempt(0), now_s=5)
    assert book.stuck(now_s=5.5, patience_s=1) == []


def test_a_recalled_attempt_leaves_the_middle_of_the_queue() -> None:
    book = a_book(slots=1)
    for index in range(3):
        place(book, index)
    book.ended(0, an_attempt(1), now_s=0.5)
    assert book.stuck(now_s=2, patience_s=1) == [(0, an_attempt(2))]


def test_attempts_found_at_the_start_take_up_their_slots() -> None:
    book = a_book(slots=2)
    book.occupy(1, an_attempt(0), ONE, exclusive=False, now_s=0)
    assert place(book, 1) == 0
    assert book.free == 0
    book.ended(1, an_attempt(0), now_s=1)
    assert book.free == 1


def test_an_attempt_in_a_slot_that_is_no_longer_used_takes_nothing_from_the_others() -> None:
    book = a_book(slots=1)
    book.occupy(5, an_attempt(0), ONE, exclusive=False, now_s=0)
    assert book.free == 1
    book.ended(5, an_attempt(0), now_s=1)
    assert book.free == 1


def test_only_slots_that_move_on_quickly_count_for_prefetching() -> None:
    book = a_book(slots=3)
    place(book, 0)
    place(book, 1, now_s=9.99)
    assert book.brisk(now_s=10, patience_s=0.06) == 2


def test_parts_of_cores_that_came_and_went_leave_room_for_a_whole_one() -> None:
    """0.2 + 0.4 + 0.3 less the same is not 0 for a float."""
    book = a_book(slots=3, cpu=1)
    for index, cpu in enumerate((0.2, 0.4, 0.3)):
        assert place(book, index, needs=Resources(cpu=cpu)) == index
    for index in range(3):
        book.ended(index, an_attempt(index), now_s=1)
    assert place(book, 3, needs=Resources(cpu=1)) == 0


def test_nothing_starts_in_a_withheld_slot_until_it_is_given_back() -> None:
    book = a_book(slots=2)
    book.withhold(0, True)
    book.withhold(0, True)
    assert (book.free, book.withheld) == (1, 1)
    assert [place(book, 0, expected_s=None), place(book, 1, expected_s=None)] == [1, None]
    book.withhold(0, False)
    assert (book.free, book.withheld) == (1, 0)
    assert place(book, 1, expected_s=None) == 0


def test_nothing_queues_in_a_slot_that_is_withheld_and_it_is_not_free_when_its_attempt_ends() -> None:
    book = a_book(slots=1)
    place(book, 0)
    book.withhold(0, True)
    assert place(book, 1) is None
    book.ended(0, an_attempt(0), now_s=1)
    assert book.free == 0
    book.withhold(0, False)
    assert book.free == 1


def test_a_withheld_slot_helps_nobody() -> None:
    book = a_book(slots=3)
    book.withhold(1, True)
    assert place(book, 0, needs=Resources(slots=2)) == 0
    assert book.free == 0
    book.ended(0, an_attempt(0), now_s=1)
    assert book.free == 2


def test_a_slot_beyond_those_of_now_cannot_be_withheld() -> None:
    book = a_book(slots=1)
    book.withhold(4, True)
    assert (book.free, book.withheld) == (1, 0)


def test_each_gpu_belongs_to_one_attempt_at_a_time() -> None:
    book = a_book(slots=4, gpus=("0", "1", "2"))
    assert place(book, 0, needs=Resources(gpus=2)) == 0
    assert place(book, 1, needs=Resources(gpus=1)) == 1
    assert place(book, 2) == 2
    assert [book.gpus_of(an_attempt(index)) for index in range(3)] == [("0", "1"), ("2",), ()]
    assert place(book, 3, needs=Resources(gpus=1), expected_s=None) is None
    book.ended(0, an_attempt(0), now_s=1)
    assert place(book, 3, needs=Resources(gpus=1)) == 0
    assert book.gpus_of(an_attempt(3)) == ("0",)


def test_what_queues_behind_an_attempt_has_its_gpus_after_it() -> None:
    book = a_book(slots=1, gpus=("0", "1"))
    place(book, 0, needs=Resources(gpus=1))
    assert place(book, 1, needs=Resources(gpus=1)) == 0
    book.ended(0, an_attempt(0), now_s=0)
    assert book.gpus_of(an_attempt(1)) == ("0",)


def test_what_needs_no_gpu_keeps_none_from_others_by_queueing_behind_one_that_has() -> None:
    book = a_book(slots=1, gpus=("0",))
    place(book, 0, needs=Resources(gpus=1))
    assert place(book, 1) is None


def test_attempts_found_at_the_start_keep_the_gpus_that_they_were_started_with() -> None:
    book = a_book(slots=3, gpus=("0", "1", "2"))
    book.occupy(0, an_attempt(0), Resources(gpus=1), exclusive=False, now_s=0, gpus=("1",))
    assert place(book, 1, needs=Resources(gpus=2)) == 1
    assert book.gpus_of(an_attempt(1)) == ("0", "2")


def test_gpus_in_a_slot_that_is_no_longer_used_are_not_given_again() -> None:
    book = a_book(slots=2, gpus=("0", "1"))
    book.occupy(7, an_attempt(0), Resources(gpus=1), exclusive=False, now_s=0, gpus=("0",))
    assert place(book, 1, needs=Resources(gpus=1)) == 0
    assert book.gpus_of(an_attempt(1)) == ("1",)
    book.ended(7, an_attempt(0), now_s=1)
    assert place(book, 2, needs=Resources(gpus=1)) == 1
    assert book.gpus_of(an_attempt(2)) == ("0",)


def test_while_it_is_not_known_which_gpus_an_attempt_has_nobody_gets_one() -> None:
    book = a_book(slots=2, gpus=("0", "1"))
    book.occupy(0, an_attempt(0), Resources(gpus=1), exclusive=False, now_s=0)
    assert place(book, 1, needs=Resources(gpus=1), expected_s=None) is None
    book.ended(0, an_attempt(0), now_s=1)
    assert place(book, 1, needs=Resources(gpus=2)) == 0
