"""Stored secrets, on every database."""

from datetime import timedelta

from tests.support.stored_records import NOW, SOMEBODY_ELSE, a_cluster, a_job, a_node, a_task, claim
from windlass_coordinator.stores.base import Store
from windlass_coordinator.stores.secrets import SealedSecret
from windlass_proto.model.ids import DEFAULT_TENANT, TaskKey, TenantId
from windlass_proto.model.secrets import SecretKind, SecretStatus

STORAGE, LOGIN = SecretKind.STORAGE, SecretKind.LOGIN


def put(store: Store, secret: SealedSecret, *, tenant: TenantId = DEFAULT_TENANT, later_s: int = 0) -> None:
    store.run_now(lambda tx: tx.put_secret(tenant, secret, now=NOW + timedelta(seconds=later_s)))


def listed(store: Store, tenant: TenantId = DEFAULT_TENANT) -> list[SecretStatus]:
    return store.run_now(lambda tx: tx.list_secrets(tenant))


def test_a_secret_is_what_was_put_last_under_its_name(store: Store) -> None:
    first = SealedSecret(name="a", kind=STORAGE, sealed=bytes(range(256)))
    second = SealedSecret(name="a", kind=LOGIN, sealed=b"\0")
    assert store.run_now(lambda tx: tx.any_sealed()) is None
    put(store, first)
    assert listed(store) == [SecretStatus(name="a", kind=STORAGE, changed_at=NOW)]
    put(store, second, later_s=1)
    assert listed(store) == [SecretStatus(name="a", kind=LOGIN, changed_at=NOW + timedelta(seconds=1))]
    assert store.run_now(lambda tx: tx.sealed_secrets(DEFAULT_TENANT, ["a"])) == [second]
    assert store.run_now(lambda tx: tx.any_sealed()) == b"\0"


def test_secrets_are_found_and_listed_by_name(store: Store) -> None:
    secrets = [SealedSecret(name=name, kind=STORAGE, sealed=name.encode()) for name in ("b", "A", "a.1")]
    for secret in secrets:
        put(store, secret)
    assert [status.name for status in listed(store)] == ["A", "a.1", "b"]
    found = store.run_now(lambda tx: tx.sealed_secrets(DEFAULT_TENANT, {"b", "A", "nothing"}))
    assert [secret.name for secret in found] == ["A", "b"]


def test_a_tenants_secrets_are_its_own(store: Store) -> None:
    ours = SealedSecret(name="a", kind=STORAGE, sealed=b"ours")
    theirs = SealedSecret(name="a", kind=STORAGE, sealed=b"theirs")
    put(store, ours)
    put(store, theirs, tenant=SOMEBODY_ELSE)
    assert store.run_now(lambda tx: tx.sealed_secrets(SOMEBODY_ELSE, ["a"])) == [theirs]
    assert store.run_now(lambda tx: tx.delete_secret(SOMEBODY_ELSE, "a"))
    assert listed(store, SOMEBODY_ELSE) == []
    assert store.run_now(lambda tx: tx.sealed_secrets(DEFAULT_TENANT, ["a"])) == [ours]


def test_a_secret_is_deleted_once(store: Store) -> None:
    put(store, SealedSecret(name="a", kind=STORAGE, sealed=b"x"))
    assert [store.run_now(lambda tx: tx.delete_secret(DEFAULT_TENANT, "a")) for _ in range(2)] == [
        True,
        False,
    ]


def test_an_attempt_leads_to_its_tenant_and_what_its_task_asks_for(store: Store) -> None:
    node = a_node(store, cluster := a_cluster(store))
    task = a_task(storage="ours")
    a_job(store, cluster, task)
    (ref,) = store.run_now(lambda tx: claim(tx, node))
    assert store.run_now(lambda tx: tx.task_of_tenant(ref.task_key)) == (DEFAULT_TENANT, task)
    assert store.run_now(lambda tx: tx.task_of_tenant(TaskKey(99))) is None
