"""What every database behind the coordinator shows of jobs and instances, page by page."""

import pytest

from tests.support.stored_records import (
    SOMEBODY_ELSE,
    a_cluster,
    a_job,
    a_node,
    a_task,
    claim,
)
from windlass_coordinator.stores.base import (
    Store,
)
from windlass_proto.model.ids import (
    DEFAULT_TENANT,
    JobId,
)


async def test_somebody_elses_job_is_not_there(store: Store) -> None:
    cluster = a_cluster(store)
    a_job(store, cluster)
    job_id = JobId("id-of-job")

    assert await store.run(lambda tx: tx.job_view(job_id, tenant=SOMEBODY_ELSE)) is None
    assert await store.run(lambda tx: tx.job_spec(job_id, tenant=SOMEBODY_ELSE)) is None
    assert await store.read(lambda q: q.job_status(job_id, tenant=SOMEBODY_ELSE)) is None
    listed = await store.read(
        lambda q: q.list_jobs(SOMEBODY_ELSE, states=(), name_contains="", limit=9, before=None)
    )
    assert listed == ([], None)
    instances = await store.read(
        lambda q: q.list_instances(
            job_id, tenant=SOMEBODY_ELSE, task="", index=None, limit=9, after=None, all_attempts=False
        )
    )
    assert instances is None


async def test_listings_go_on_where_the_last_page_ended(store: Store) -> None:
    cluster = a_cluster(store)
    for number in range(5):
        a_job(store, cluster, name=f"job-{number}")
    pages, before = [], None
    while True:
        jobs, before = await store.read(
            lambda q, before=before: q.list_jobs(  # type: ignore[misc]  # a default in a lambda
                DEFAULT_TENANT, states=(), name_contains="", limit=2, before=before
            )
        )
        pages.append([job.name for job in jobs])
        if before is None:
            break

    assert pages == [["job-4", "job-3"], ["job-2", "job-1"], ["job-0"]]


@pytest.mark.parametrize(
    ("text", "found"), [("50%", ["50%_x"]), ("%", ["50%_x"]), ("_", ["50%_x"]), ("'", [])]
)
async def test_a_filter_is_text_not_a_pattern(store: Store, text: str, found: list[str]) -> None:
    cluster = a_cluster(store)
    for name in ("50%_x", "500x"):
        a_job(store, cluster, name=name)

    jobs, _ = await store.read(
        lambda q: q.list_jobs(DEFAULT_TENANT, states=(), name_contains=text, limit=9, before=None)
    )

    assert [job.name for job in jobs] == found


async def test_instances_are_listed_by_task_and_index(store: Store) -> None:
    cluster = a_cluster(store)
    node = a_node(store, cluster)
    a_job(store, cluster, a_task("b", instances=3), a_task("a", instances=2))
    await store.run(lambda tx: claim(tx, node, want=3))
    seen, after = [], None
    while True:
        found = await store.read(
            lambda q, after=after: q.list_instances(  # type: ignore[misc]  # a default in a lambda
                JobId("id-of-job"),
                tenant=DEFAULT_TENANT,
                task="",
                index=None,
                limit=2,
                after=after,
                all_attempts=False,
            )
        )
        assert found is not None
        seen += [(instance.task, instance.index) for instance in found[0]]
        after = found[1]
        if after is None:
            break

    assert seen == [("b", 0), ("b", 1), ("b", 2), ("a", 0), ("a", 1)]
