"""Stored secrets: put, delete, list, and given to the node that carries out an attempt that names them.

What is opened is opened outside of here, by whoever holds the master key; a verb sees sealed bytes only.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from windlass_coordinator.core.publishing import Standing
from windlass_coordinator.core.records import NodeView
from windlass_coordinator.stores.base import Transaction
from windlass_coordinator.stores.secrets import SealedSecret
from windlass_proto.checks import nearest
from windlass_proto.errors import Conflict, Denied, NotFound, Problem
from windlass_proto.model.ids import AttemptRef, TenantId
from windlass_proto.model.secrets import NamedSecret, SecretKind, SecretStatus, secrets_named_by
from windlass_proto.model.specs import TaskSpec

MOST_SECRETS = 10_000
"""Of one tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOut:
    """What an attempt's specification names, still sealed."""

    tenant: TenantId
    secrets: Sequence[SealedSecret]


def put_secret(
    tx: Transaction,
    tenant: TenantId,
    secret: SealedSecret,
    *,
    can_open: Callable[[bytes], bool],
    now: datetime,
) -> SecretStatus:
    """Raises Conflict when what is stored here was sealed under a master key that this coordinator lacks:
    with another one for the new secret, none of the coordinators could open all."""
    stored = tx.any_sealed()
    if stored is not None and not can_open(stored):
        raise Conflict(
            "stored secrets are sealed under a master key that this coordinator does not have: "
            "the operator has to bring that key file, or all of them have to be deleted"
        )
    known = {status.name for status in tx.list_secrets(tenant)}
    if secret.name not in known and len(known) >= MOST_SECRETS:
        raise Conflict(f"there are {MOST_SECRETS} secrets already: delete some first")
    tx.put_secret(tenant, secret, now=now)
    return SecretStatus(name=secret.name, kind=secret.kind, changed_at=now)


def delete_secret(tx: Transaction, tenant: TenantId, name: str) -> None:
    """Whatever still names it fails when it comes to need it."""
    if not tx.delete_secret(tenant, name):
        raise _not_there(name, [status.name for status in tx.list_secrets(tenant)])


def unknown_secrets(tx: Transaction, tenant: TenantId, tasks: Collection[TaskSpec]) -> list[Problem]:
    """Names in the tasks that are no secrets of the tenant, or of another kind than is needed there."""
    named = [(task.name, secret) for task in tasks for secret in secrets_named_by(task)]
    if not named:
        return []
    kinds = {status.name: status.kind for status in tx.list_secrets(tenant)}
    return [
        Problem(path=f"tasks.{task}.{secret.field}", message=why)
        for task, secret in named
        if (why := _why_not(secret, kinds)) is not None
    ]


def _why_not(secret: NamedSecret, kinds: Mapping[str, SecretKind]) -> str | None:
    kind = kinds.get(secret.name)
    if kind is None:
        close = nearest(secret.name, kinds)
        hint = f"did you mean {close!r}?" if close else "store it first: windlass secret put"
        return f"there is no stored secret {secret.name!r}; {hint}"
    if kind is not secret.kind:
        return f"must name a stored {secret.kind}; {secret.name!r} is a {kind}"
    return None


def hand_out(tx: Transaction, node: NodeView, ref: AttemptRef) -> HandedOut:
    """Exactly what the attempt's task names, to the node that holds it now. Raises Denied for every other
    node and attempt (invariant I18)."""
    if not _holds(tx.standing(ref), node, ref):
        raise Denied("this node does not hold this attempt (any more)")
    found = tx.task_of_tenant(ref.task_key)
    if found is None:
        raise Denied("this attempt is not on record")
    tenant, task = found
    kinds = {secret.name: secret.kind for secret in secrets_named_by(task)}
    sealed = tx.sealed_secrets(tenant, kinds.keys()) if kinds else []
    fitting = [secret for secret in sealed if kinds[secret.name] is secret.kind]
    return HandedOut(tenant=tenant, secrets=fitting)


def _holds(standing: Standing | None, node: NodeView, ref: AttemptRef) -> bool:
    return (
        standing is not None
        and (standing.node_key, standing.epoch) == (node.node_key, node.epoch)
        and (standing.newest_attempt, standing.newest_fence) == (ref.attempt, ref.fence)
        and standing.fence == ref.fence
        and not standing.state.is_terminal
    )


def _not_there(name: str, known: Sequence[str]) -> NotFound:
    close = nearest(name, known)
    return NotFound(f"there is no stored secret {name!r}" + (f"; did you mean {close!r}?" if close else ""))
