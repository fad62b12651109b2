"""Who is calling: turns a bearer token into an identity.

The answer is kept for five seconds, so that a call in a hot loop costs one dictionary look-up; a revoked
token works for that long at most. Those of nodes may be kept for longer, as ten thousand idle ones would ask
thousands of times a second, where somebody tells which of them to forget (`forget_nodes`). What an identity
may do is decided in `access`, not here.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_never

from windlass_coordinator.auth.tokens import Token, TokenKind, has_digest, parse_token
from windlass_proto.errors import Denied
from windlass_proto.model.ids import ClusterName, NodeId, NodeKey, TenantId

REMEMBERED_FOR = timedelta(seconds=5)
NODES_REMEMBERED_FOR = timedelta(minutes=5)
"""Where each change of a node is told."""
_REMEMBERED = 20_000
"""Two tokens for each of 10,000 nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminIdentity:
    """May do everything."""

    tenant: TenantId
    credential_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIdentity:
    """Acts for one tenant."""

    tenant: TenantId
    credential_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """The agent of one node."""

    node_id: NodeId
    node_key: NodeKey
    tenant: TenantId
    cluster: ClusterName


Identity = AdminIdentity | UserIdentity | AgentIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRecord:
    """What the store knows of a token."""

    kind: TokenKind
    token_id: str
    digest: str
    tenant: TenantId
    node_id: NodeId | None = None
    """Of node tokens, like the two below."""
    node_key: NodeKey | None = None
    cluster: ClusterName | None = None
    expires_at: datetime | None = None
    """None = never."""
    revoked: bool = False


CredentialLookup = Callable[[str], Awaitable[CredentialRecord | None]]
"""The record of a token id."""


class Unauthenticated(Denied):
    """The call carries no token that is valid here."""

    code = "UNAUTHENTICATED"


class Authenticator:
    """Turns tokens into identities, and remembers them for a moment."""

    def __init__(
        self,
        lookup: CredentialLookup,
        *,
        nodes_remembered_for: timedelta = REMEMBERED_FOR,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` judges expiry, `clock` (seconds) the age of what is remembered."""
        self._lookup = lookup
        self._nodes_remembered_for = nodes_remembered_for
        self._now = now
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Identity]] = OrderedDict()
        self._texts: dict[NodeKey, str] = {}
        self._forgotten = 0

    async def authenticate(self, text: str) -> Identity:
        """The identity that the token `text` proves; raises Unauthenticated."""
        known = self._known.get(text)
        if known is not None and self._clock() < known[0]:
            return known[1]
        self._forget(text)
        forgotten = self._forgotten
        record = await self._valid_record(text)
        identity = _identity(record)
        # What was forgotten meanwhile may have been this one.
        is_told = self._forgotten == forgotten and isinstance(identity, AgentIdentity)
        longest = self._nodes_remembered_for if is_told else REMEMBERED_FOR
        self._known[text] = (self._clock() + self._lifetime_s(record, longest), identity)
        if isinstance(identity, AgentIdentity):
            self._texts[identity.node_key] = text
        if len(self._known) > _REMEMBERED:
            self._forget(next(iter(self._known)))
        return identity

    def forget_nodes(self, nodes: Collection[NodeKey]) -> None:
        """What these may has changed, or their credential was revoked."""
        if nodes:
            self._forgotten += 1
        for node_key in nodes:
            text = self._texts.get(node_key)
            if text is not None:
                self._forget(text)

    def _forget(self, text: str) -> None:
        known = self._known.pop(text, None)
        if known is not None and isinstance(known[1], AgentIdentity):
            self._texts.pop(known[1].node_key, None)

    async def _valid_record(self, text: str) -> CredentialRecord:
        token = parse_token(text)
        if token is None:
            raise Unauthenticated("this is not a Windlass token, or it was damaged: copy it whole")
        record = await self._lookup(token.token_id)
        if record is None or not _proves(token, record):
            raise Unauthenticated(f"the token {token.token_id} is not known here")
        if record.revoked:
            raise Unauthenticated(f"the token {token.token_id} has been revoked: ask for a new one")
        if record.expires_at is not None and record.expires_at <= self._now():
            raise Unauthenticated(f"the token {token.token_id} has expired: ask for a new one")
        return record

    def _lifetime_s(self, record: CredentialRecord, longest: timedelta) -> float:
        if record.expires_at is None:
            return longest.total_seconds()
        return min(longest, record.expires_at - self._now()).total_seconds()


def _proves(token: Token, record: CredentialRecord) -> bool:
    return token.kind is record.kind and has_digest(token, record.digest)


def _identity(record: CredentialRecord) -> Identity:
    match record.kind:
        case TokenKind.ADMIN:
            return AdminIdentity(tenant=record.tenant, credential_id=record.token_id)
        case TokenKind.USER:
            return UserIdentity(tenant=record.tenant, credential_id=record.token_id)
        case TokenKind.NODE:
            return _node_identity(record)
        case TokenKind.JOIN:
            raise Unauthenticated("a join token is only good for joining: start an agent with it")
        case _:
            assert_never(record.kind)


def _node_identity(record: CredentialRecord) -> AgentIdentity:
    if record.node_id is None or record.node_key is None or record.cluster is None:
        raise ValueError(f"the record of the node token {record.token_id} names no node")
    return AgentIdentity(
        node_id=record.node_id, node_key=record.node_key, tenant=record.tenant, cluster=record.cluster
    )
