"""New databases in memory with the newest schema, without all the migrations each time: specs make thousands.

What the migrations lead to is asked of them once; whether that is what the code knows, `test_schema.py` says.
"""

from functools import cache

from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.pool import StaticPool

from windlass_coordinator.stores.schema.migrations import migrate


def migrate_quickly(connection: Connection) -> None:
    """In place of `migrate`; for a database that holds something it is the real one."""
    if inspect(connection).get_table_names():
        migrate(connection)
        return
    for statement in _newest():
        connection.exec_driver_sql(statement)


@cache
def _newest() -> list[str]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        migrate(connection)
        lines = connection.connection.driver_connection.iterdump()  # type: ignore[union-attr]  # sqlite3's
        return [line for line in lines if line not in ("BEGIN TRANSACTION;", "COMMIT;")]
