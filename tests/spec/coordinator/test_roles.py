"""When a coordinator may take the role of another one."""

from datetime import timedelta

from windlass_coordinator.core.records import RoleSight
from windlass_coordinator.core.roles import RolePolicy, RoleWatch

SECOND = timedelta(seconds=1)
POLICY = RolePolicy(beat_every=SECOND, take_after=5 * SECOND)


def sight(*, beat: int, holder: str = "other", term: int = 3) -> RoleSight:
    return RoleSight(holder=holder, term=term, beat=beat)


def test_a_role_that_nobody_has_is_taken_at_once() -> None:
    assert RoleWatch(POLICY).look(None, since_last=SECOND)
    assert RoleWatch(POLICY).look(sight(beat=1, holder=""), since_last=SECOND)


def test_a_beat_that_grows_keeps_its_holder_for_ever() -> None:
    watch = RoleWatch(POLICY)
    assert not any(watch.look(sight(beat=beat), since_last=SECOND) for beat in range(100))


def test_a_beat_that_stands_still_is_replaced_after_it_was_watched_for_long_enough() -> None:
    watch = RoleWatch(POLICY)
    looks = [watch.look(sight(beat=7), since_last=SECOND) for _ in range(7)]
    assert looks == [False] * 5 + [True] * 2


def test_time_in_which_the_watcher_stood_still_is_not_watching() -> None:
    watch = RoleWatch(POLICY)
    watch.look(sight(beat=7), since_last=SECOND)
    assert not watch.look(sight(beat=7), since_last=timedelta(hours=1))


def test_a_new_holder_is_watched_from_the_beginning() -> None:
    watch = RoleWatch(POLICY)
    for _ in range(5):
        watch.look(sight(beat=7), since_last=SECOND)
    assert not watch.look(sight(beat=8, holder="third", term=4), since_last=SECOND)
    assert not watch.look(sight(beat=8, holder="third", term=4), since_last=SECOND)
