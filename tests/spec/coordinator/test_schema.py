"""The migrations, one after another, make the very tables that the code knows."""

import subprocess
import sys
from pathlib import Path

from sqlalchemy import Engine, Inspector, MetaData, create_engine, inspect
from sqlalchemy.pool import StaticPool

from windlass_coordinator.stores.schema.migrations import known_revisions, migrate
from windlass_coordinator.stores.schema.tables import metadata
from windlass_coordinator.stores.schema.upgrade import load_revision


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


def test_files_are_numbered_as_they_follow_one_another() -> None:
    known = known_revisions()
    followed = [load_revision(revision).down_revision for revision in known]
    assert followed == [None, *known[:-1]]


_OPEN = """
import sys
from windlass_coordinator.stores.sqlite.files import open_database
open_database(sys.argv[1])
print("alembic" in sys.modules)
"""


def test_only_a_database_that_must_be_changed_costs_the_loading_of_alembic(tmp_path: Path) -> None:
    command = (sys.executable, "-c", _OPEN, str(tmp_path / "database.sqlite"))
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said == ["True\n", "False\n"]
