"""The periodic duties of a coordinator when there are several: one holds the role and does them.

The holder shows that it lives by a beat in the database; the others watch it, each on its own clock, and one
of them takes the role in a new term when the beat stands still. Everything that a duty writes is bound to the
term it was begun in (`check_role`), so a holder that was stopped and goes on writes nothing any more
(invariant I22)."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog

from windlass_coordinator.core.records import Role, RoleSight
from windlass_coordinator.core.roles import RolePolicy, RoleWatch
from windlass_coordinator.stores.base import Transaction, VerbRunner
from windlass_coordinator.stores.machines import RoleLost
from windlass_proto.errors import WindlassError

T = TypeVar("T")

_SWEEPER = "sweeper"
"""The role that all periodic duties belong to."""

_log = structlog.get_logger()

Duties = Mapping[str, Callable[[], Awaitable[None]]]
Keeping = Callable[[Duties], AbstractAsyncContextManager[None]]
"""Runs duties while its context is open."""


class RoleBound:
    """Runs the verbs of duties, each under the role: in one transaction with the proof that it is still
    held."""

    def __init__(self, store: VerbRunner) -> None:
        self._store = store
        self.role: Role | None = None
        self.lost = asyncio.Event()

    async def run(self, verb: Callable[[Transaction], T]) -> T:
        """As `Store.run`. A duty that runs on after the role was lost gets no answer: it is being
        cancelled."""
        role = self.role
        if role is not None:

            def checked(tx: Transaction) -> T:
                tx.check_role(role)
                return verb(tx)

            try:
                return await self._store.run(checked)
            except RoleLost:
                self.lost.set()
        await asyncio.Event().wait()
        raise AssertionError


class RoleKeeper:
    """Takes the role when nobody else has it, and does its duties as long as it is held."""

    def __init__(
        self,
        store: VerbRunner,
        bound: RoleBound,
        *,
        policy: RolePolicy,
        duties: Duties,
        keeping: Keeping,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """The duties write through `bound`."""
        self._store = store
        self._bound = bound
        self._policy = policy
        self._duties = duties
        self._keeping = keeping
        self._monotonic = monotonic
        self._holder = secrets.token_hex(8)
        self._had: Role | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            role = await self._take()
            _log.info("role.taken", role=role.name, term=role.term)
            self._bound.role = role
            self._bound.lost.clear()
            try:
                async with self._keeping(self._duties):
                    await self._hold(role)
            finally:
                self._had, self._bound.role = role, None
            _log.warning("role.lost", role=role.name, term=role.term)

    async def give_up(self) -> None:
        """After the end: whoever looks next takes the role, instead of waiting for a beat."""
        role = self._had
        if role is not None:
            with contextlib.suppress(WindlassError):
                await self._store.run(partial(_give_up, role=role))

    async def _take(self) -> Role:
        watch = RoleWatch(self._policy)
        looked_s = self._monotonic()
        while True:
            sight = await self._store.run(lambda tx: tx.role(_SWEEPER))
            now_s = self._monotonic()
            if watch.look(sight, since_last=timedelta(seconds=now_s - looked_s)):
                taking = partial(_take_role, holder=self._holder, seen=sight)
                role = await self._store.run(taking)
                if role is not None:
                    return role
            looked_s = now_s
            await asyncio.sleep(self._policy.beat_every.total_seconds())

    async def _hold(self, role: Role) -> None:
        """Returns when the role is lost, or may be."""
        renewed_s = self._monotonic()
        while not self._bound.lost.is_set():
            began_s = self._monotonic()
            try:
                if not await self._store.run(lambda tx: tx.renew_role(role)):
                    return
                renewed_s = began_s
            except WindlassError as error:
                _log.warning("role.not_renewed", role=role.name, error=str(error))
            if self._monotonic() - renewed_s > self._policy.take_after.total_seconds():
                return
            try:
                async with asyncio.timeout(self._policy.beat_every.total_seconds()):
                    await self._bound.lost.wait()
            except TimeoutError:
                continue


def _take_role(tx: Transaction, holder: str, seen: RoleSight | None) -> Role | None:
    return tx.take_role(_SWEEPER, holder, seen=seen)


def _give_up(tx: Transaction, role: Role) -> None:
    sight = tx.role(role.name)
    if sight is not None and (sight.holder, sight.term) == (role.holder, role.term):
        tx.take_role(role.name, "", seen=sight)
