"""What a restored coordinator does with agents that know more than it does (promise P16).

Each spec lets a coordinator work, takes a backup, lets it work on, and loses it; then an agent of that lost
time opens a session with the one that was restored from the backup.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import Machine, a_job, a_task, exits, holds
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.admin.backup import back_up
from windlass_coordinator.admin.restore import restore
from windlass_coordinator.stores import open_store
from windlass_proto.errors import Denied, SessionLost
from windlass_proto.model.events import Started
from windlass_proto.model.facts import FactKind
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.states import AttemptState, JobState
from windlass_proto.model.verdicts import EventVerdict, InventoryVerdict


class LosableCoordinator(InMemoryCoordinator):
    """On disk, so that it can be backed up, and restored after more has happened."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.store.close()
        self._data = data
        data.mkdir()
        self.store = open_store(f"sqlite:///{data / 'windlass.db'}")
        self.create_cluster("default")
        self._lives = 1

    def back_up(self) -> None:
        back_up(self._data, self._data.with_suffix(".backup"), with_logs=False)

    def restore(self) -> None:
        """What happened since the backup is lost, but for what the agents know."""
        self.store.close()
        self._lives += 1
        self._data = self._data.with_name(f"life-{self._lives}")
        restore(self._data.with_name("life-1.backup"), self._data)
        self.store = open_store(f"sqlite:///{self._data / 'windlass.db'}")
        # Another life: nothing is compared with the one that was lost.
        self.watch = type(self.watch)()

    def verdicts(self, machine: Machine, *refs: AttemptRef, ended: bool = False) -> list[InventoryVerdict]:
        opened = self.open_session(machine, *(holds(ref, has_exit=ended) for ref in refs))
        return [item.verdict for item in opened.verdicts]


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[LosableCoordinator]:
    with LosableCoordinator(tmp_path / "life-1") as coordinator:
        yield coordinator


def test_an_attempt_that_runs_since_before_the_backup_goes_on(coordinator: LosableCoordinator) -> None:
    job, node = coordinator.submit(), coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.back_up()
    coordinator.report(node, ref, Started())
    coordinator.restore()

    assert coordinator.verdicts(node, ref) == [InventoryVerdict.KEEP]
    assert coordinator.report(node, ref, Started(), exits()) is EventVerdict.ACCEPTED
    assert coordinator.state(job) is JobState.SUCCEEDED


def test_a_result_that_was_acknowledged_after_the_backup_lands_again(coordinator: LosableCoordinator) -> None:
    job, node = coordinator.submit(), coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.back_up()
    coordinator.report(node, ref, Started(), exits(7))
    coordinator.restore()

    assert coordinator.verdicts(node, ref, ended=True) == [InventoryVerdict.REPORT]
    assert coordinator.report(node, ref, Started(), exits(7)) is EventVerdict.ACCEPTED
    assert coordinator.instance(job).attempts[-1].exit_code == 7


def test_an_attempt_that_ended_before_the_backup_is_never_live_again(coordinator: LosableCoordinator) -> None:
    job, node = coordinator.submit(), coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started(), exits())
    coordinator.back_up()
    coordinator.restore()

    assert coordinator.verdicts(node, ref, ended=True) == [InventoryVerdict.FORGET]
    assert coordinator.report(node, ref, exits(1)) is EventVerdict.CONFLICT
    assert coordinator.state(job) is JobState.SUCCEEDED


def test_an_attempt_with_a_newer_fence_than_the_backups_is_ended_and_told_of(
    coordinator: LosableCoordinator,
) -> None:
    job, node = coordinator.submit(), coordinator.node()
    first = coordinator.claim_one(node)
    coordinator.back_up()
    coordinator.release(node, first)
    second = coordinator.claim_one(node)
    coordinator.restore()

    assert coordinator.verdicts(node, second) == [InventoryVerdict.KILL]
    assert coordinator.report(node, second, exits()) is EventVerdict.UNKNOWN
    assert coordinator.attempt_states(job) == [AttemptState.RELEASED]
    assert orphans(coordinator) == 1


def test_attempts_of_jobs_that_the_backup_does_not_know_are_ended_and_told_of(
    coordinator: LosableCoordinator,
) -> None:
    node = coordinator.node()
    coordinator.back_up()
    coordinator.submit()
    lost = coordinator.claim_one(node)
    coordinator.restore()
    coordinator.submit()

    assert coordinator.verdicts(node, lost) == [InventoryVerdict.KILL]
    assert orphans(coordinator) == 1
    assert coordinator.claim_one(node).task_key > lost.task_key, "the key of another task, given out again"


def test_no_fence_is_issued_twice_though_both_lives_claim_the_same_instances(
    coordinator: LosableCoordinator,
) -> None:
    coordinator.submit(a_job(a_task(instances=4)))
    node = coordinator.node()
    coordinator.back_up()
    issued = {ref.fence for ref in coordinator.claim(node, want=4)}
    for _ in range(2):
        coordinator.restore()
        coordinator.open_session(node)
        again = {ref.fence for ref in coordinator.claim(node, want=4)}
        assert max(issued) < min(again)
        issued |= again


def test_a_nodes_epoch_grows_over_a_restore_and_its_old_session_is_lost(
    coordinator: LosableCoordinator,
) -> None:
    node = coordinator.node()
    coordinator.back_up()
    for _ in range(3):
        coordinator.open_session(node)
    before = node.epoch
    coordinator.restore()

    with pytest.raises(SessionLost):
        coordinator.claim(node)
    coordinator.open_session(node)
    assert node.epoch > before


def test_a_node_may_come_back_without_a_known_nonce_once(coordinator: LosableCoordinator) -> None:
    node = coordinator.node()
    coordinator.back_up()
    coordinator.open_session(node)
    newest = node.nonce
    coordinator.restore()
    coordinator.open_session(node, nonce=newest)
    coordinator.claim(node)  # so it has the reply

    with pytest.raises(Denied, match="another copy"):
        coordinator.open_session(node, nonce=newest)


def test_a_session_that_nobody_opened_is_nobodys(coordinator: LosableCoordinator) -> None:
    node = coordinator.node()
    coordinator.back_up()
    coordinator.restore()
    (node.epoch,) = coordinator.rows("SELECT epoch FROM nodes")[0]
    node.nonce = ""

    with pytest.raises(SessionLost):
        coordinator.claim(node)


@pytest.mark.parametrize("happened", ["claimed", "running"])
def test_what_its_node_finished_and_forgot_meanwhile_runs_again(
    coordinator: LosableCoordinator, happened: str
) -> None:
    job, node = coordinator.submit(), coordinator.node()
    ref = coordinator.claim_one(node)
    if happened == "running":
        coordinator.report(node, ref, Started())
    coordinator.back_up()
    coordinator.report(node, ref, Started(), exits())
    coordinator.restore()

    coordinator.open_session(node)
    lost = {"claimed": AttemptState.RELEASED, "running": AttemptState.LOST}
    assert coordinator.attempt_states(job) == [lost[happened]]
    assert not coordinator.state(job).is_terminal


def orphans(coordinator: LosableCoordinator) -> int:
    rows = coordinator.rows("SELECT count(*) FROM facts WHERE kind = ?", FactKind.ATTEMPT_ORPHANED)
    return int(rows[0][0])
