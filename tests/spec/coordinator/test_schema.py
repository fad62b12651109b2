"""The migrations, one after another, make the very tables that the code knows."""

from sqlalchemy import Engine, Inspector, MetaData, create_engine, inspect
from sqlalchemy.pool import StaticPool

from windlass_coordinator.stores.schema.migrations import migrate
from windlass_coordinator.stores.schema.tables import metadata


def _engine() -> Engine:
    return create_engine("sqlite://", poolclass=StaticPool)


def _shape(engine: Engine) -> dict[str, object]:
    found: Inspector = inspect(engine)
    return {
        table: (
            {
                (column["name"], str(column["type"]), column["nullable"])
                for column in found.get_columns(table)
            },
            {index["name"] for index in found.get_indexes(table)},
        )
        for table in found.get_table_names()
        if table != "alembic_version"
    }


def _made_at_once(tables: MetaData) -> Engine:
    engine = _engine()
    tables.create_all(engine)
    return engine


def test_migrations_lead_to_the_tables_that_the_code_knows() -> None:
    migrated = _engine()
    with migrated.begin() as connection:
        migrate(connection)
    assert _shape(migrated) == _shape(_made_at_once(metadata))
