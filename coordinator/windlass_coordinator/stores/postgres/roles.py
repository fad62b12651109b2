"""Roles on PostgreSQL: which of several coordinators does the periodic duties."""

from windlass_coordinator.core.records import Role, RoleSight
from windlass_coordinator.stores.machines import RoleLost
from windlass_coordinator.stores.postgres.locks import PostgresLocks


class PostgresRoles(PostgresLocks):
    """The part of a transaction that knows who holds a role."""

    def role(self, name: str) -> RoleSight | None:
        row = self._row("SELECT holder, term, beat FROM roles WHERE role = $1", name)
        return None if row is None else RoleSight(holder=row[0], term=row[1], beat=row[2])

    def take_role(self, name: str, holder: str, *, seen: RoleSight | None) -> Role | None:
        if seen is None:
            rows = self._change_returning(
                "INSERT INTO roles (role, holder, term, beat) VALUES ($1, $2, 1, 1) "
                "ON CONFLICT DO NOTHING RETURNING term",
                name,
                holder,
            )
        else:
            rows = self._change_returning(
                "UPDATE roles SET holder = $1, term = term + 1, beat = beat + 1 "
                "WHERE role = $2 AND term = $3 AND beat = $4 RETURNING term",
                holder,
                name,
                seen.term,
                seen.beat,
            )
        return Role(name=name, holder=holder, term=rows[0][0]) if rows else None

    def renew_role(self, role: Role) -> bool:
        changed = self._change_counted(
            "UPDATE roles SET beat = beat + 1 WHERE role = $1 AND holder = $2 AND term = $3",
            role.name,
            role.holder,
            role.term,
        )
        return changed == 1

    def check_role(self, role: Role) -> None:
        # Held until the end: a successor waits for what is written under this term, and only for that.
        rows = self._lock(
            "SELECT 1 FROM roles WHERE role = $1 AND holder = $2 AND term = $3 FOR SHARE",
            role.name,
            role.holder,
            role.term,
        )
        if not rows:
            raise RoleLost(f"the role {role.name} was taken by another coordinator")
