"""Roles on SQLite. One process has the file, so it holds every role; the rules are kept all the same."""

import sqlite3

from windlass_coordinator.core.records import Role, RoleSight
from windlass_coordinator.stores.machines import RoleLost


class SqliteRoles:
    """The part of a transaction that knows who does the periodic duties."""

    _db: sqlite3.Connection

    def role(self, name: str) -> RoleSight | None:
        row = self._db.execute("SELECT holder, term, beat FROM roles WHERE role = ?", (name,)).fetchone()
        return None if row is None else RoleSight(holder=row[0], term=row[1], beat=row[2])

    def take_role(self, name: str, holder: str, *, seen: RoleSight | None) -> Role | None:
        if seen is None:
            row = self._db.execute(
                "INSERT INTO roles (role, holder, term, beat) VALUES (?, ?, 1, 1) "
                "ON CONFLICT DO NOTHING RETURNING term",
                (name, holder),
            ).fetchone()
        else:
            row = self._db.execute(
                "UPDATE roles SET holder = ?, term = term + 1, beat = beat + 1 "
                "WHERE role = ? AND term = ? AND beat = ? RETURNING term",
                (holder, name, seen.term, seen.beat),
            ).fetchone()
        return None if row is None else Role(name=name, holder=holder, term=row[0])

    def renew_role(self, role: Role) -> bool:
        changed = self._db.execute(
            "UPDATE roles SET beat = beat + 1 WHERE role = ? AND holder = ? AND term = ?",
            (role.name, role.holder, role.term),
        )
        return changed.rowcount == 1

    def check_role(self, role: Role) -> None:
        sight = self.role(role.name)
        if sight is None or (sight.holder, sight.term) != (role.holder, role.term):
            raise RoleLost(f"the role {role.name} was taken by another coordinator")
