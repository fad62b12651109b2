"""When a node takes more work."""

import pytest

from windlass_agent.core.disk_pressure import DiskFloor, DiskSpace
from windlass_agent.core.intake import Intake, Obstacle

GIB = 1 << 30
RESERVE = DiskFloor(size_bytes=GIB, inodes=10_000)


def a_disk(
    *, free_bytes: int = 50 * GIB, total_bytes: int = 100 * GIB, free_inodes: int = 1_000_000
) -> DiskSpace:
    return DiskSpace(
        free_bytes=free_bytes,
        total_bytes=total_bytes,
        free_inodes=free_inodes,
        total_inodes=10_000_000,
    )


def test_a_disk_is_short_below_its_reserve() -> None:
    assert RESERVE.shortage(a_disk(free_bytes=GIB), was_short=False) == ""
    assert RESERVE.shortage(a_disk(free_bytes=GIB - 1), was_short=False) == (
        "1024.0 MiB of disk are free, 1024.0 MiB are to stay"
    )


def test_a_disk_that_was_short_is_so_until_there_is_clearly_more() -> None:
    assert RESERVE.shortage(a_disk(free_bytes=GIB + GIB // 5), was_short=True)
    assert not RESERVE.shortage(a_disk(free_bytes=GIB + GIB // 4), was_short=True)


def test_of_a_small_disk_a_twentieth_is_kept() -> None:
    assert not RESERVE.shortage(a_disk(total_bytes=GIB, free_bytes=GIB // 20 + 1), was_short=False)
    assert RESERVE.shortage(a_disk(total_bytes=GIB, free_bytes=GIB // 21), was_short=False)


def test_inodes_run_out_too() -> None:
    assert RESERVE.shortage(a_disk(free_inodes=9_999), was_short=False) == (
        "9999 inodes are free, 10000 are to stay"
    )


def test_a_file_system_without_inode_counts_never_lacks_them() -> None:
    space = DiskSpace(free_bytes=50 * GIB, total_bytes=100 * GIB, free_inodes=0, total_inodes=0)
    assert not RESERVE.shortage(space, was_short=True)


def test_work_is_taken_when_nothing_is_in_the_way() -> None:
    intake = Intake()
    assert (intake.is_open, intake.why_closed) == (True, "")


def test_every_obstacle_has_to_go() -> None:
    intake = Intake()
    intake.close(Obstacle.DISK, "full")
    intake.close(Obstacle.BACKLOG, "much")
    assert intake.clear(Obstacle.DISK)
    assert (intake.is_open, intake.why_closed) == (False, "much")
    assert intake.clear(Obstacle.BACKLOG)
    assert intake.is_open


def test_an_obstacle_is_told_once_in_its_first_words() -> None:
    intake = Intake()
    assert intake.close(Obstacle.DISK, "3 MiB free")
    assert not intake.close(Obstacle.DISK, "2 MiB free")
    assert intake.why_closed == "3 MiB free"
    assert intake.clear(Obstacle.DISK)
    assert not intake.clear(Obstacle.DISK)


@pytest.mark.parametrize("order", [(Obstacle.DISK, Obstacle.LEAVING), (Obstacle.LEAVING, Obstacle.DISK)])
def test_of_several_obstacles_the_most_telling_is_named(order: tuple[Obstacle, Obstacle]) -> None:
    intake = Intake()
    for obstacle in order:
        intake.close(obstacle, str(obstacle))
    assert intake.why_closed == "leaving"
