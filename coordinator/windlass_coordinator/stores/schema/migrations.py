"""Brings a database to the newest schema, or refuses it, in one transaction.

What must never happen: an empty database made over a foreign or damaged one, or an older program working on
a newer schema.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect

from windlass_proto.errors import Conflict

_VERSIONS = Path(__file__).resolve().parent / "versions"
_VERSION_TABLE = "alembic_version"


def migrate(connection: Connection) -> None:
    """Upgrades the schema behind `connection`, inside its transaction.

    Raises Conflict for a database of another program or of a newer Windlass; it is left untouched.
    """
    tables = inspect(connection).get_table_names()
    current = None
    if _VERSION_TABLE in tables:
        current = connection.exec_driver_sql(f"SELECT version_num FROM {_VERSION_TABLE}").scalar()
    if current is not None:
        refuse_newer(current)
    else:
        _refuse_foreign(tables)
    if current != known_revisions()[-1]:
        # Alembic is a fifth of what a coordinator loads: one that only starts again does without.
        from windlass_coordinator.stores.schema.upgrade import upgrade

        upgrade(connection, current)


def known_revisions() -> list[str]:
    """Of this program, oldest first: the numbers of the files in `versions/`."""
    return sorted(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))


def refuse_newer(revision: str) -> None:
    """Raises Conflict for a schema that this program does not know."""
    known = known_revisions()
    if revision not in known:
        raise Conflict(
            f"the database has schema {revision}, unknown to this version (newest here: {known[-1]}): "
            "start the newer version that wrote it"
        )


def _refuse_foreign(tables: list[str]) -> None:
    others = sorted(name for name in tables if name != _VERSION_TABLE)
    if others:
        raise Conflict(
            f"the database holds tables that are not Windlass's ({', '.join(others[:3])}, ...): "
            "name another data directory"
        )
