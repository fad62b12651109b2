"""Which image an attempt ran in is recorded with it, and stays what it was."""

import pytest

from tests.support.builders import a_job, a_task, exits, told
from tests.support.coordinator import InMemoryCoordinator
from windlass_proto.convert import agent as convert
from windlass_proto.errors import InvalidRequest
from windlass_proto.model.events import Started
from windlass_proto.model.verdicts import EventVerdict

ONE, OTHER = (f"sha256:{digit * 64}" for digit in "12")


def digest_of(coordinator: InMemoryCoordinator, *happenings: object) -> str:
    job, node = coordinator.submit(a_job(a_task())), coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report_all(node, [told(ref, what) for what in happenings])  # type: ignore[arg-type]  # any happening
    return coordinator.instance(job).attempts[-1].image_digest


def test_the_digest_comes_with_the_start(coordinator: InMemoryCoordinator) -> None:
    assert digest_of(coordinator, Started(image_digest=ONE)) == ONE


def test_a_command_without_a_container_has_none(coordinator: InMemoryCoordinator) -> None:
    assert digest_of(coordinator, Started(), exits()) == ""


def test_start_and_end_may_be_told_together(coordinator: InMemoryCoordinator) -> None:
    assert digest_of(coordinator, Started(image_digest=ONE), exits()) == ONE


def test_a_start_that_is_told_after_the_end_brings_the_digest_all_the_same(
    coordinator: InMemoryCoordinator,
) -> None:
    assert digest_of(coordinator, exits(), Started(image_digest=ONE)) == ONE


def test_another_digest_does_not_replace_the_first(coordinator: InMemoryCoordinator) -> None:
    assert digest_of(coordinator, Started(image_digest=ONE), Started(image_digest=OTHER)) == ONE


def test_another_nodes_word_changes_nothing(coordinator: InMemoryCoordinator) -> None:
    job, node = coordinator.submit(a_job(a_task())), coordinator.node()
    ref = coordinator.claim_one(node)
    said = coordinator.report(coordinator.node(), ref, Started(image_digest=ONE))
    assert (said, coordinator.instance(job).attempts[-1].image_digest) == (EventVerdict.UNKNOWN, "")


@pytest.mark.parametrize("text", ["latest", "sha256:xyz", "sha256:" + "0" * 64 + "\0"])
def test_what_is_no_digest_is_refused(coordinator: InMemoryCoordinator, text: str) -> None:
    job, node = coordinator.submit(a_job(a_task())), coordinator.node()
    event = told(coordinator.claim_one(node), Started(image_digest=text))
    message = convert.events_to_wire([event])
    with pytest.raises(InvalidRequest, match="digest of an image"):
        list(convert.events_from_wire(message))
    assert coordinator.instance(job).attempts[-1].image_digest == ""
