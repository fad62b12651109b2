"""What users call about secrets. A value goes in and never comes out here."""

from datetime import UTC, datetime

from windlass_coordinator.auth.sealing import Seal, Sealer
from windlass_coordinator.engine import secrets as verbs
from windlass_coordinator.rpc.interceptors import Context, current_caller
from windlass_coordinator.stores.base import Store
from windlass_coordinator.stores.secrets import SealedSecret
from windlass_proto import convert
from windlass_proto.checks import SpecLimits
from windlass_proto.checks.secrets import check_secret
from windlass_proto.checks.words import Findings, check_name
from windlass_proto.v1 import secrets_pb2 as wire
from windlass_proto.v1 import secrets_pb2_grpc


class SecretService(secrets_pb2_grpc.SecretServiceServicer):
    """Implements `windlass.v1.SecretService`."""

    def __init__(self, store: Store, sealer: Sealer, limits: SpecLimits) -> None:
        self._store, self._sealer, self._limits = store, sealer, limits

    async def PutSecret(self, request: wire.PutSecretRequest, context: Context) -> wire.SecretStatus:
        tenant = current_caller().tenant
        kind = convert.SECRET_KIND.from_wire(request.kind)
        findings = Findings()
        check_secret(findings, request.name, kind, request.document, limits=self._limits)
        findings.raise_if_any()
        sealed = self._sealer.seal(request.document, Seal(tenant=tenant, name=request.name, kind=kind))
        secret = SealedSecret(name=request.name, kind=kind, sealed=sealed)
        status = await self._store.run(
            lambda tx: verbs.put_secret(tx, tenant, secret, can_open=self._sealer.can_open, now=_now())
        )
        return convert.secret_status_to_wire(status)

    async def ListSecrets(self, request: wire.ListSecretsRequest, context: Context) -> wire.ListSecretsReply:
        tenant = current_caller().tenant
        found = await self._store.run(lambda tx: tx.list_secrets(tenant))
        return wire.ListSecretsReply(secrets=[convert.secret_status_to_wire(status) for status in found])

    async def DeleteSecret(
        self, request: wire.DeleteSecretRequest, context: Context
    ) -> wire.DeleteSecretReply:
        tenant = current_caller().tenant
        findings = Findings()
        check_name(findings, "name", request.name, longest=self._limits.name_length)
        findings.raise_if_any()
        await self._store.run(lambda tx: verbs.delete_secret(tx, tenant, request.name))
        return wire.DeleteSecretReply()


def _now() -> datetime:
    return datetime.now(UTC)
