"""How the room for output on a node is shared out."""

from windlass_agent.core.disk_pressure import DiskSpace
from windlass_agent.runner.spool_quota import SpoolLimits, SpoolQuota, node_limit

MIB = 1 << 20
LIMITS = SpoolLimits(per_attempt_bytes=256 * MIB, per_node_bytes=1024 * MIB)


class Told:
    """What the keepers of some slots were told, in turn."""

    def __init__(self) -> None:
        self.limits: list[tuple[int, int]] = []

    def limit_spool(self, *, attempt_bytes: int, slot_bytes: int) -> None:
        self.limits.append((attempt_bytes // MIB, slot_bytes // MIB))


def test_each_slot_has_an_equal_share() -> None:
    slots = [Told() for _ in range(4)]
    SpoolQuota(slots, LIMITS, slots=4, backlog=lambda: 0).share_out()
    assert [one.limits for one in slots] == [[(256, 256)]] * 4


def test_what_ended_attempts_left_here_is_taken_from_every_share_until_it_is_gone() -> None:
    slot, backlog = Told(), 0
    quota = SpoolQuota([slot], LIMITS, slots=2, backlog=lambda: backlog)
    for backlog in (0, 0, 600 * MIB, 2000 * MIB, 0):  # noqa: B007  (read by the quota)
        quota.share_out()
    assert slot.limits == [(256, 512), (256, 212), (256, 0), (256, 512)]


def test_a_node_keeps_a_tenth_of_its_file_system_and_eight_gibibytes_at_most() -> None:
    def limit_mib(total_mib: int) -> int:
        space = DiskSpace(free_bytes=0, total_bytes=total_mib * MIB, free_inodes=0, total_inodes=0)
        return node_limit(space) // MIB

    assert (limit_mib(1000), limit_mib(1_000_000)) == (100, 8192)
