"""The node's isolation as the agent's start finds and makes it, and its end takes it back."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from windlass_agent.core.isolation import NodeIsolation, parse_user_range
from windlass_agent.isolation.machine import choose_isolation
from windlass_agent.isolation.metadata import (
    block_metadata,
    block_metadata_in_containers,
    container_group,
    unblock_metadata,
)
from windlass_agent.isolation.users import UserClaim, claim_users
from windlass_proto.model.specs import Isolation


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationSettings:
    """As in the settings of the same names."""

    isolation: str
    uid_range: str
    metadata: str
    slots: int


class NodeIsolationInUse:
    def __init__(self, isolation: NodeIsolation, claim: UserClaim | None, *, unprotected: str) -> None:
        self.isolation, self._claim = isolation, claim
        self.unprotected = unprotected
        """Why metadata addresses are reachable; "" = they are not, from containers neither."""

    def describe(self) -> str:
        """In words for people: a node's facts and its log show it."""
        lacks = [f"no {profile}: {why}" for profile, why in self.isolation.lacks.items()]
        notes = "; ".join(note for note in (*lacks, self.unprotected) if note)
        return f"{self.isolation.profile} isolation" + (f" ({notes})" if notes else "")

    def close(self, *, commands_ended: bool) -> None:
        """Commands that go on keep their rules; the next agent here takes them over."""
        if self._claim is None:
            return
        if commands_ended and self.isolation.profile is not Isolation.DEV:
            unblock_metadata(self._claim.users)
        self._claim.close()


def open_isolation(settings: IsolationSettings, state: Path) -> NodeIsolationInUse:
    """Tries what the machine can do. Raises InvalidRequest when that is not what was asked for."""
    whole = parse_user_range(settings.uid_range)
    claim = claim_users(whole, state / "users") if os.geteuid() == 0 else None
    users = claim.users if claim else None
    isolation = choose_isolation(settings.isolation, state, users, slots=settings.slots)
    if claim is None or isolation.profile is Isolation.DEV:
        unprotected = "metadata addresses are not blocked"
    elif settings.metadata == "allowed":
        unprotected = "metadata addresses are allowed"
    else:
        unprotected = block_metadata(claim.users) or block_metadata_in_containers(claim.users)
        isolation = replace(isolation, container_group=0 if unprotected else container_group(claim.users))
    return NodeIsolationInUse(isolation, claim, unprotected=unprotected)
