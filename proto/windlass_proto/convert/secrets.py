"""Secrets <-> wire."""

from windlass_proto.convert.enums import SECRET_KIND
from windlass_proto.convert.times import timestamp_from_wire, timestamp_to_wire
from windlass_proto.model.secrets import OpenedSecret, SecretStatus
from windlass_proto.v1 import agent_pb2, secrets_pb2


def secret_status_to_wire(secret: SecretStatus) -> secrets_pb2.SecretStatus:
    return secrets_pb2.SecretStatus(
        name=secret.name,
        kind=SECRET_KIND.to_wire(secret.kind),
        changed_at=timestamp_to_wire(secret.changed_at),
    )


def secret_status_from_wire(message: secrets_pb2.SecretStatus) -> SecretStatus:
    return SecretStatus(
        name=message.name,
        kind=SECRET_KIND.from_wire(message.kind),
        changed_at=timestamp_from_wire(message.changed_at),
    )


def opened_secret_to_wire(secret: OpenedSecret) -> agent_pb2.OpenedSecret:
    return agent_pb2.OpenedSecret(
        name=secret.name, kind=SECRET_KIND.to_wire(secret.kind), document=secret.document
    )


def opened_secret_from_wire(message: agent_pb2.OpenedSecret) -> OpenedSecret:
    return OpenedSecret(
        name=message.name, kind=SECRET_KIND.from_wire(message.kind), document=message.document
    )
