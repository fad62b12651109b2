"""Stored secrets: who may name them, and which node gets them when."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.support.builders import Machine, a_job, a_task, exits
from tests.support.coordinator import InMemoryCoordinator
from windlass_coordinator.engine.secrets import HandedOut, delete_secret, hand_out, put_secret
from windlass_coordinator.engine.session import current_node
from windlass_coordinator.stores.base import InstanceChange
from windlass_coordinator.stores.secrets import SealedSecret
from windlass_proto.errors import Conflict, Denied, InvalidJob, NotFound, SessionLost
from windlass_proto.model.events import Started
from windlass_proto.model.ids import DEFAULT_TENANT, AttemptRef, Fence, TenantId
from windlass_proto.model.secrets import SecretKind, secrets_named_by
from windlass_proto.model.specs import Container, InputMapping, OutputMapping, TaskSpec
from windlass_proto.model.states import InstanceState

OTHERS = TenantId("others")


def put(
    coordinator: InMemoryCoordinator,
    name: str,
    *,
    kind: SecretKind = SecretKind.STORAGE,
    tenant: TenantId = DEFAULT_TENANT,
    sealed: bytes = b"sealed",
) -> SealedSecret:
    secret = SealedSecret(name=name, kind=kind, sealed=sealed)
    coordinator.run(lambda tx: put_secret(tx, tenant, secret, can_open=lambda _: True, now=coordinator.now))
    return secret


def fetched(coordinator: InMemoryCoordinator, node: Machine, ref: AttemptRef) -> list[str]:
    def verb(tx: object) -> HandedOut:
        return hand_out(tx, current_node(tx, node.key, node.session), ref)  # type: ignore[arg-type]  # any tx

    return [secret.name for secret in coordinator.run(verb).secrets]


def a_task_with_names() -> TaskSpec:
    return a_task(
        storage="main",
        inputs=(
            InputMapping(source="oss://b/1/", destination="in", storage="inputs"),
            InputMapping(source="oss://b/2/", destination="in2"),
        ),
        outputs=(OutputMapping(source="out", destination="oss://b/3/", storage="outputs"),),
        container=Container(image="private/tool", login="registry"),
    )


def test_a_specification_names_secrets_in_four_places() -> None:
    named = [
        (secret.field, secret.name, str(secret.kind)) for secret in secrets_named_by(a_task_with_names())
    ]
    assert named == [
        ("storage", "main", "storage"),
        ("inputs[0].storage", "inputs", "storage"),
        ("outputs[0].storage", "outputs", "storage"),
        ("container.login", "registry", "login"),
    ]


def test_names_that_are_not_stored_are_refused_at_submit_with_their_fields(
    coordinator: InMemoryCoordinator,
) -> None:
    put(coordinator, "inputs")
    put(coordinator, "output")
    put(coordinator, "registry", tenant=OTHERS)
    put(coordinator, "main", kind=SecretKind.LOGIN)
    with pytest.raises(InvalidJob) as refused:
        coordinator.submit(a_job(a_task_with_names()))
    assert [str(problem) for problem in refused.value.problems] == [
        "tasks.task.storage: must name a stored storage; 'main' is a login",
        "tasks.task.outputs[0].storage: there is no stored secret 'outputs'; did you mean 'output'?",
        "tasks.task.container.login: there is no stored secret 'registry'; "
        "store it first: windlass secret put",
    ]


def test_a_node_gets_exactly_what_the_task_of_its_attempt_names(coordinator: InMemoryCoordinator) -> None:
    for name in ("ours", "other"):
        put(coordinator, name)
    coordinator.submit(a_job(a_task(storage="ours")))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    assert fetched(coordinator, node, ref) == ["ours"]
    coordinator.report(node, ref, Started())
    assert fetched(coordinator, node, ref) == ["ours"]


def test_the_tenant_whose_secrets_they_are_is_that_of_the_job(coordinator: InMemoryCoordinator) -> None:
    put(coordinator, "ours", sealed=b"ours")
    put(coordinator, "ours", sealed=b"theirs", tenant=OTHERS)
    coordinator.submit(a_job(a_task(storage="ours")))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    found = coordinator.run(lambda tx: hand_out(tx, current_node(tx, node.key, node.session), ref))
    assert (found.tenant, [secret.sealed for secret in found.secrets]) == (DEFAULT_TENANT, [b"ours"])


def test_no_other_node_gets_them(coordinator: InMemoryCoordinator) -> None:
    put(coordinator, "ours")
    coordinator.submit(a_job(a_task(storage="ours")))
    node, other = coordinator.node(), coordinator.node()
    ref = coordinator.claim_one(node)
    with pytest.raises(Denied, match="does not hold this attempt"):
        fetched(coordinator, other, ref)


@pytest.mark.parametrize("change", [{"fence": Fence(10**9)}, {"attempt": 2}, {"index": 7}])
def test_only_the_attempt_that_holds_its_instance_gets_them(
    coordinator: InMemoryCoordinator, change: dict[str, int]
) -> None:
    put(coordinator, "ours")
    coordinator.submit(a_job(a_task(storage="ours")))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    with pytest.raises(Denied):
        fetched(coordinator, node, replace(ref, **change))  # type: ignore[arg-type]  # numbers all


def test_an_attempt_whose_instance_has_a_newer_fence_gets_nothing(coordinator: InMemoryCoordinator) -> None:
    put(coordinator, "ours")
    coordinator.submit(a_job(a_task(storage="ours")))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    newer = InstanceChange(task_key=ref.task_key, index=0, state=InstanceState.ACTIVE, raise_fence=True)
    coordinator.store.run_now(lambda tx: tx.change_instances([newer]))
    with pytest.raises(Denied):
        coordinator.store.run_now(lambda tx: hand_out(tx, current_node(tx, node.key, node.session), ref))


def test_an_attempt_that_has_ended_gets_nothing_any_more(coordinator: InMemoryCoordinator) -> None:
    put(coordinator, "ours")
    coordinator.submit(a_job(a_task(storage="ours")))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.report(node, ref, Started(), exits())
    with pytest.raises(Denied):
        fetched(coordinator, node, ref)


def test_a_node_that_was_given_up_gets_nothing_for_what_it_had(coordinator: InMemoryCoordinator) -> None:
    put(coordinator, "ours")
    coordinator.submit(a_job(a_task(storage="ours")))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    old = replace(node)
    coordinator.open_session(node)  # its inventory does not list the attempt: it is lost
    with pytest.raises(SessionLost):
        fetched(coordinator, old, ref)
    with pytest.raises(Denied):
        fetched(coordinator, node, ref)


def test_a_secret_that_was_deleted_meanwhile_is_not_handed_out(coordinator: InMemoryCoordinator) -> None:
    put(coordinator, "ours")
    coordinator.submit(a_job(a_task(storage="ours")))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    coordinator.run(lambda tx: delete_secret(tx, DEFAULT_TENANT, "ours"))
    assert fetched(coordinator, node, ref) == []


def test_a_secret_that_became_of_another_kind_is_not_handed_out(coordinator: InMemoryCoordinator) -> None:
    put(coordinator, "ours")
    coordinator.submit(a_job(a_task(storage="ours")))
    node = coordinator.node()
    ref = coordinator.claim_one(node)
    put(coordinator, "ours", kind=SecretKind.LOGIN)
    assert fetched(coordinator, node, ref) == []


def test_deleting_what_is_not_there_names_what_is_near(coordinator: InMemoryCoordinator) -> None:
    put(coordinator, "research")
    with pytest.raises(NotFound, match="there is no stored secret 'reserch'; did you mean 'research'"):
        coordinator.run(lambda tx: delete_secret(tx, DEFAULT_TENANT, "reserch"))


def test_under_another_master_key_nothing_is_added_until_all_is_deleted(
    coordinator: InMemoryCoordinator,
) -> None:
    put(coordinator, "old", sealed=json.dumps("other key").encode())
    new = SealedSecret(name="new", kind=SecretKind.STORAGE, sealed=b"this key")

    def add() -> None:
        coordinator.later(timedelta(seconds=1))
        coordinator.run(
            lambda tx: put_secret(tx, DEFAULT_TENANT, new, can_open=b"this key".__eq__, now=coordinator.now)
        )

    with pytest.raises(Conflict, match="under a master key that this coordinator does not have"):
        add()
    coordinator.run(lambda tx: delete_secret(tx, DEFAULT_TENANT, "old"))
    add()
    add()
