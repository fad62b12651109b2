"""How long it is remembered which node a credential is of, and when that ends at once."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from windlass_coordinator.auth.identity import (
    NODES_REMEMBERED_FOR,
    Authenticator,
    CredentialRecord,
    Unauthenticated,
)
from windlass_coordinator.auth.tokens import RANDOM_BYTES, Token, TokenKind, new_token
from windlass_proto.model.ids import ClusterName, NodeId, NodeKey, TenantId

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Records:
    """The store's side, with a clock that the test moves."""

    known: dict[str, CredentialRecord] = field(default_factory=dict)
    looked_up: list[str] = field(default_factory=list)
    seconds: float = 0.0
    meanwhile: list[NodeKey] = field(default_factory=list)
    """Nodes that change while a record is looked up."""

    def __post_init__(self) -> None:
        self.authenticator = Authenticator(
            self._find,
            nodes_remembered_for=NODES_REMEMBERED_FOR,
            now=lambda: NOW + timedelta(seconds=self.seconds),
            clock=lambda: self.seconds,
        )

    async def _find(self, token_id: str) -> CredentialRecord | None:
        self.looked_up.append(token_id)
        found = self.known.get(token_id)
        self.authenticator.forget_nodes(self.meanwhile)
        return found

    def add_node(self, key: int) -> Token:
        return self._add(
            TokenKind.NODE,
            key,
            node_id=NodeId(f"node-{key}"),
            node_key=NodeKey(key),
            cluster=ClusterName("default"),
        )

    def add_user(self) -> Token:
        return self._add(TokenKind.USER, 99)

    def _add(self, kind: TokenKind, number: int, **more: object) -> Token:
        token = new_token(kind, randomness=bytes([number]) * RANDOM_BYTES)
        self.known[token.token_id] = CredentialRecord(
            kind=kind,
            token_id=token.token_id,
            digest=token.digest,
            tenant=TenantId("default"),
            **more,  # type: ignore[arg-type]  # fields by name
        )
        return token

    def remove(self, token: Token) -> None:
        del self.known[token.token_id]

    def authenticate(self, token: Token) -> None:
        asyncio.run(self._authenticate(token))

    async def _authenticate(self, token: Token) -> None:
        await self.authenticator.authenticate(token.text)


def test_a_node_is_remembered_for_minutes() -> None:
    records = Records()
    node = records.add_node(1)
    records.authenticate(node)
    records.seconds = 299
    records.authenticate(node)
    assert records.looked_up == [node.token_id]

    records.seconds = 301
    records.authenticate(node)
    assert records.looked_up == [node.token_id] * 2


def test_a_user_is_remembered_for_seconds() -> None:
    records = Records()
    user = records.add_user()
    records.authenticate(user)
    records.seconds = 6
    records.remove(user)

    with pytest.raises(Unauthenticated):
        records.authenticate(user)


def test_a_node_that_has_changed_is_looked_up_at_once_and_others_are_not() -> None:
    records = Records()
    gone, other = records.add_node(1), records.add_node(2)
    records.authenticate(gone)
    records.authenticate(other)
    records.remove(gone)
    records.authenticator.forget_nodes([NodeKey(1), NodeKey(3)])

    records.authenticate(other)
    with pytest.raises(Unauthenticated):
        records.authenticate(gone)


def test_a_node_that_changes_while_it_is_looked_up_is_not_trusted_for_long() -> None:
    records = Records(meanwhile=[NodeKey(1)])
    node = records.add_node(1)
    records.authenticate(node)
    records.remove(node)
    records.seconds = 6

    with pytest.raises(Unauthenticated):
        records.authenticate(node)
