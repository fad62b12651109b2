"""Who gets what, in which order."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.builders import a_job, a_task, exits, holds, in_cluster, needing, told
from tests.support.coordinator import InMemoryCoordinator
from windlass_proto.errors import SessionLost
from windlass_proto.model.events import Started
from windlass_proto.model.states import AttemptState, JobState, NodeState, TaskState
from windlass_proto.model.status import InstanceCounts


def test_a_claim_takes_as_many_instances_as_are_wanted_and_no_more(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task(instances=100)))
    node = coordinator.node()

    assert [ref.index for ref in coordinator.claim(node, want=3)] == [0, 1, 2]
    assert [ref.index for ref in coordinator.claim(node, want=20)] == list(range(3, 23))
    assert coordinator.counts(job) == InstanceCounts(ready=77, active=23)


def test_a_first_claim_starts_the_job_and_the_task(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a"), a_task("b")))
    node = coordinator.node()

    coordinator.claim(node)

    assert coordinator.state(job) is JobState.RUNNING
    assert coordinator.task_states(job) == {"a": TaskState.RUNNING, "b": TaskState.READY}


def test_a_batch_carries_what_its_attempts_share_once(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a", instances=2), a_task("b")))
    node = coordinator.node()

    a, b = coordinator.claim_batches(node, want=10)

    assert (a.task.job_id, a.task.name, a.task.instance_count, a.index, a.attempt) == (
        job,
        "a",
        2,
        (0, 1),
        (1, 1),
    )
    assert (b.task.job_id, b.task.name, b.index) == (job, "b", (0,))
    assert a.task.spec == coordinator.rows("SELECT spec FROM tasks WHERE name = 'a'")[0][0]


def test_nothing_wanted_is_nothing_given(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()

    assert coordinator.claim(coordinator.node(), want=0) == []


def test_higher_priorities_go_first_and_among_equals_the_older(coordinator: InMemoryCoordinator) -> None:
    for name, priority in [("low", -1), ("first", 0), ("second", 0), ("high", 5)]:
        coordinator.submit(a_job(name=name, priority=priority))
    node = coordinator.node()

    order = [coordinator.claim_batches(node)[0].task.job_id for _ in range(4)]

    assert [coordinator.status(job).name for job in order] == ["high", "first", "second", "low"]


def test_a_priority_changed_while_waiting_decides_the_next_claim(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task(instances=10), name="running", priority=1))
    late = coordinator.submit(a_job(name="late"))
    node = coordinator.node()
    coordinator.claim(node)

    coordinator.set_priority(late, 2)

    assert coordinator.claim_batches(node)[0].task.job_id == late


def test_a_priority_changed_before_a_task_is_ready_counts_too(coordinator: InMemoryCoordinator) -> None:
    job = coordinator.submit(a_job(a_task("a"), a_task("b", after=("a",))))
    node = coordinator.node()
    coordinator.claim(node)
    coordinator.submit(a_job(name="other", priority=1))
    coordinator.set_priority(job, 2)
    coordinator.report(node, node.held[0], exits())

    assert coordinator.claim_batches(node)[0].task.name == "b"


def test_clusters_have_their_own_queues(coordinator: InMemoryCoordinator) -> None:
    coordinator.create_cluster("gpu")
    job = coordinator.submit(a_job(in_cluster(a_task("theirs"), "gpu"), a_task("ours")))

    assert [b.task.name for b in coordinator.claim_batches(coordinator.node(), want=9)] == ["ours"]
    assert [b.task.name for b in coordinator.claim_batches(coordinator.node(cluster="gpu"), want=9)] == [
        "theirs"
    ]
    assert coordinator.state(job) is JobState.RUNNING


@pytest.mark.parametrize("needs", [{"slots": 3}, {"cpu": 2.5}, {"memory_bytes": 2 << 30}, {"gpus": 2}])
def test_what_could_never_fit_is_left_for_a_larger_node(
    coordinator: InMemoryCoordinator, needs: dict[str, float]
) -> None:
    job = coordinator.submit(a_job(needing(a_task("large"), **needs), a_task("small")))

    small = coordinator.node(slots=2, cpu=2, memory_bytes=1 << 30, gpus=1)
    large = coordinator.node(slots=4, cpu=4, memory_bytes=4 << 30, gpus=2)

    assert [batch.task.name for batch in coordinator.claim_batches(small, want=9)] == ["small"]
    assert [batch.task.name for batch in coordinator.claim_batches(large, want=9)] == ["large"]
    assert coordinator.counts(job, "large") == InstanceCounts(active=1)


def test_what_does_not_fit_does_not_hide_what_comes_after_it(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(*(needing(a_task(f"large-{n}"), slots=3) for n in range(20)), priority=9))
    coordinator.submit(a_job(a_task("small")))

    assert [b.task.name for b in coordinator.claim_batches(coordinator.node(slots=2))] == ["small"]


def test_no_more_is_given_than_the_node_has_gpus_left(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(needing(a_task("pairs", instances=9), gpus=2), needing(a_task("one"), gpus=1)))
    node = coordinator.node(slots=9, gpus=5)

    assert [(b.task.name, b.index) for b in coordinator.claim_batches(node, want=9)] == [
        ("pairs", (0, 1)),
        ("one", (0,)),
    ]
    coordinator.report(node, node.held[0], exits())
    assert [(b.task.name, b.index) for b in coordinator.claim_batches(node, want=9)] == [("pairs", (2,))]
    assert coordinator.claim_batches(node, want=9) == []


def test_work_that_waits_for_gpus_does_not_hide_what_needs_none(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(
        a_job(*(needing(a_task(f"gpu-{n}", instances=3), gpus=1) for n in range(20)), priority=9)
    )
    coordinator.submit(a_job(a_task("without", instances=9)))

    node = coordinator.node(slots=3, gpus=1)

    assert [b.task.name for b in coordinator.claim_batches(node, want=3)] == ["gpu-0", "without"]
    assert [b.task.name for b in coordinator.claim_batches(node, want=3)] == ["without"]


def test_a_retry_waits_for_a_free_gpu_too(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(needing(a_task(instances=2, max_retries=3), gpus=1)))
    node = coordinator.node(slots=2, gpus=1)
    first = coordinator.claim_one(node)
    coordinator.report(node, first, exits(1))
    second = coordinator.claim_one(node)
    coordinator.later(timedelta(hours=1))
    coordinator.ready_due()

    assert coordinator.claim(node, want=2) == []
    coordinator.report(node, second, exits())
    assert [(ref.index, ref.attempt) for ref in coordinator.claim(node, want=2)] == [(0, 2)]


def test_a_node_that_has_fewer_gpus_than_it_had_still_takes_what_needs_none(
    coordinator: InMemoryCoordinator,
) -> None:
    coordinator.submit(a_job(needing(a_task("gpu", instances=4), gpus=1)))
    node = coordinator.node(slots=4, gpus=2)
    refs = coordinator.claim(node, want=4)
    coordinator.submit(a_job(a_task("without")))

    coordinator.later(timedelta(seconds=1))
    for ref in refs[:1]:
        coordinator.report(node, ref, exits())
    node.facts = replace(node.facts, gpus=1)
    coordinator.open_session(node, *(holds(ref) for ref in refs[1:]))

    assert [b.task.name for b in coordinator.claim_batches(node, want=4)] == ["without"]


def test_instances_to_run_again_go_before_new_ones(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task(instances=10)))
    node = coordinator.node()
    coordinator.claim(node, want=3)
    coordinator.release(node, node.held[1])

    refs = coordinator.claim(node, want=2)

    assert [(ref.index, ref.attempt) for ref in refs] == [(1, 2), (3, 1)]


def test_a_range_may_mix_with_retries_of_other_tasks(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task("a", instances=30), a_task("b", instances=2)))
    node = coordinator.node()
    coordinator.claim(node, want=20)
    coordinator.release(node, *node.held[5:15])

    batches = coordinator.claim_batches(node, want=100)

    assert [(b.task.name, len(b.index), sorted(set(b.attempt))) for b in batches] == [
        ("a", 20, [1, 2]),
        ("b", 2, [1]),
    ]


def test_a_fence_grows_with_every_claim_and_every_revoke(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    fences = []
    for _ in range(3):
        (ref,) = coordinator.claim(node)
        coordinator.release(node, ref)
        fences += [ref.fence, coordinator.rows("SELECT fence FROM instances")[0][0]]

    assert fences == list(range(fences[0], fences[0] + 6))


def test_only_a_ready_node_gets_work(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    coordinator.run(lambda tx: tx.set_node_state(node.key, NodeState.DRAINING, now=coordinator.now))

    assert coordinator.claim(node) == []


def test_a_silent_node_must_open_a_session_before_it_gets_work(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    coordinator.mark_silent(node)

    with pytest.raises(SessionLost, match="this node is SILENT: open a new session"):
        coordinator.claim(node)
    coordinator.open_session(node)
    assert len(coordinator.claim(node)) == 1


def test_a_repeated_poll_brings_the_same_attempts_again(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task("a", instances=20), a_task("b", instances=3)))
    node = coordinator.node()

    refs = coordinator.claim(node, want=22)

    assert coordinator.poll_again(node) == refs
    assert coordinator.poll_again(node) == refs


def test_a_new_poll_brings_nothing_of_an_older_one(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit()
    node = coordinator.node()
    coordinator.claim(node)

    assert coordinator.claim(node) == []
    assert coordinator.poll_again(node) == []


def test_a_repeated_poll_does_not_bring_what_has_started_meanwhile(coordinator: InMemoryCoordinator) -> None:
    coordinator.submit(a_job(a_task(instances=2)))
    node = coordinator.node()
    first, second = coordinator.claim(node, want=2)

    coordinator.report(node, first, Started())

    assert coordinator.poll_again(node) == [second]


def test_polls_of_two_sessions_are_told_apart_though_their_numbers_are_equal(
    coordinator: InMemoryCoordinator,
) -> None:
    job = coordinator.submit()
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.open_session(node, holds(ref))
    node.poll_seq = 1

    assert coordinator.poll_again(node) == []
    assert coordinator.attempt_states(job) == [AttemptState.LEASED]
    assert coordinator.report_all(node, [told(ref, Started())]) == ["ACCEPTED"]
