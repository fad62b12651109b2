"""Gets what the task names by the names of stored secrets: storages with their keys, logins of registries.

They live in the attempt's context and go with it: nothing of them is written down, so they are asked for anew
when results are uploaded, also by an agent that was started in between.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from windlass_agent.mounts.base import StorageOpener
from windlass_agent.runner.steps.base import StepContext, StepFailure
from windlass_proto.errors import Conflict, WindlassError
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.secrets import (
    NamedSecret,
    OpenedSecret,
    SecretKind,
    read_login,
    read_storage,
    secrets_named_by,
)
from windlass_proto.model.storage import StorageProfile


class SecretSource(Protocol):
    """The coordinator."""

    async def fetch(self, ref: AttemptRef) -> Sequence[OpenedSecret]:
        """Those of the attempt's task that exist. Raises Denied when it is not this node's any more."""


class StoredStorages(Protocol):
    """What turns profiles into storages."""

    def for_attempt(self, stored: Mapping[str, StorageProfile], *, default: str) -> StorageOpener: ...


class SecretsStep:
    def __init__(self, source: SecretSource, storages: StoredStorages) -> None:
        self._source, self._storages = source, storages

    async def for_preparation(self, context: StepContext) -> StepFailure | None:
        """Everything that the task names."""
        return await self._fetch(context, secrets_named_by(context.spec))

    async def for_results(self, context: StepContext) -> StepFailure | None:
        """What uploads need; the rest may be gone by then."""
        named = secrets_named_by(context.spec)
        of_results = ("storage", "outputs[")
        return await self._fetch(context, [one for one in named if one.field.startswith(of_results)])

    async def _fetch(self, context: StepContext, named: Collection[NamedSecret]) -> StepFailure | None:
        if not named:
            return None
        try:
            opened = {secret.name: secret for secret in await self._source.fetch(context.ref)}
        except Conflict as problem:
            return StepFailure(kind=FailureKind.USER_CONFIG, reason=str(problem))
        except WindlassError as problem:
            return StepFailure(kind=FailureKind.INFRA_PREPARE, reason=f"stored secrets: {problem}")
        for one in named:
            if one.name not in opened:
                return StepFailure(
                    kind=FailureKind.USER_CONFIG,
                    reason=f"{one.field}: there is no stored {one.kind} {one.name!r} any more",
                )
        return self._keep(context, [opened[name] for name in {one.name: None for one in named}])

    def _keep(self, context: StepContext, opened: Sequence[OpenedSecret]) -> StepFailure | None:
        stored: dict[str, StorageProfile] = {}
        for secret in opened:
            try:
                if secret.kind is SecretKind.STORAGE:
                    stored[secret.name] = read_storage(secret.document)
                else:
                    context.logins[secret.name] = read_login(secret.document)
            except ValueError as problem:  # put by a newer version
                return StepFailure(
                    kind=FailureKind.USER_CONFIG,
                    reason=f"the stored {secret.kind} {secret.name!r}: {problem}",
                )
        context.storages = self._storages.for_attempt(stored, default=context.spec.storage)
        return None
