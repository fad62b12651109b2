"""Enums by name: `JobState.RUNNING` is `JOB_STATE_RUNNING` on the wire.

Tables are made once from both definitions, so a value that one side lacks is found when this is imported,
not when it is first used.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Generic, TypeVar, cast

from windlass_proto.errors import InvalidRequest
from windlass_proto.model import secrets, specs, states, verdicts
from windlass_proto.model.failures import FailureKind
from windlass_proto.v1 import agent_pb2, clusters_pb2, jobs_pb2, secrets_pb2, specs_pb2

Ours = TypeVar("Ours", bound=Enum)
Wire = TypeVar("Wire", bound=int)


class EnumCodec(Generic[Ours, Wire]):
    """One of our enums and its wire form, both ways."""

    def __init__(self, ours: type[Ours], wire: type[Wire]) -> None:
        # The stubs show a wire enum as a class of its values; at run time it is a wrapper with plain numbers.
        wrapper = cast(Any, wire)
        self._name = ours.__name__
        prefix = _upper_snake(wrapper.DESCRIPTOR.name) + "_"
        numbers = {name.removeprefix(prefix): number for name, number in wrapper.items() if number != 0}
        if numbers.keys() != ours.__members__.keys():
            odd = ", ".join(sorted(numbers.keys() ^ ours.__members__.keys()))
            raise ValueError(f"{self._name} differs between model and wire: {odd}")
        self._to_wire: dict[Ours, Wire] = {ours[name]: number for name, number in numbers.items()}
        self._from_wire: dict[int, Ours] = {number: ours[name] for name, number in numbers.items()}

    def to_wire(self, value: Ours) -> Wire:
        return self._to_wire[value]

    def from_wire(self, number: int) -> Ours:
        """Raises InvalidRequest for a number that has no meaning here."""
        try:
            return self._from_wire[number]
        except KeyError:
            raise self._meaningless(number) from None

    def all_to_wire(self, values: Iterable[Ours]) -> list[Wire]:
        table = self._to_wire
        return [table[value] for value in values]

    def all_from_wire(self, numbers: Iterable[int]) -> list[Ours]:
        table = self._from_wire
        try:
            return [table[number] for number in numbers]
        except KeyError as unknown:
            raise self._meaningless(unknown.args[0]) from None

    def _meaningless(self, number: int) -> InvalidRequest:
        if number == 0:
            return InvalidRequest(f"{self._name} is not given")
        return InvalidRequest(
            f"{self._name} {number} is not known here; the other side may be a newer version"
        )


def failure_from_wire(name: str) -> FailureKind | None:
    """A failure travels by its name, "" = none. Raises InvalidRequest for a name that has no meaning here."""
    if not name:
        return None
    try:
        return FailureKind(name)
    except ValueError:
        raise InvalidRequest(f"failure kind {name!r} is not known here") from None


def _upper_snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


JOB_STATE = EnumCodec(states.JobState, jobs_pb2.JobState)
TASK_STATE = EnumCodec(states.TaskState, jobs_pb2.TaskState)
INSTANCE_STATE = EnumCodec(states.InstanceState, jobs_pb2.InstanceState)
ATTEMPT_STATE = EnumCodec(states.AttemptState, jobs_pb2.AttemptState)
LOG_STREAM = EnumCodec(states.LogStream, jobs_pb2.LogStream)
LOG_STATE = EnumCodec(states.LogState, jobs_pb2.LogState)
NODE_STATE = EnumCodec(states.NodeState, clusters_pb2.NodeState)
ATTEMPT_PHASE = EnumCodec(states.AttemptPhase, agent_pb2.AttemptPhase)
EVENT_VERDICT = EnumCodec(verdicts.EventVerdict, agent_pb2.EventVerdict)
INVENTORY_VERDICT = EnumCodec(verdicts.InventoryVerdict, agent_pb2.InventoryVerdict)
DISCONNECT_POLICY = EnumCodec(specs.DisconnectPolicy, specs_pb2.DisconnectPolicy)
FULL_SPOOL = EnumCodec(specs.FullSpool, specs_pb2.FullSpool)
ISOLATION = EnumCodec(specs.Isolation, specs_pb2.Isolation)
SECRET_KIND = EnumCodec(secrets.SecretKind, secrets_pb2.SecretKind)
