"""Brings a database to the newest schema, or refuses it, in one transaction.

Alembic runs the numbered files of `versions/`. What must never happen: an empty database made over a
foreign or damaged one, or an older program working on a newer schema.
"""

from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from windlass_proto.errors import Conflict
from windlass_proto.failpoints import reach

_HERE = Path(__file__).resolve().parent


def migrate(connection: Connection) -> None:
    """Upgrades the schema behind `connection`, inside its transaction.

    Raises Conflict for a database of another program or of a newer Windlass; it is left untouched.
    """
    scripts = _scripts()
    context = MigrationContext.configure(connection)
    current = context.get_current_revision()
    _refuse_foreign(connection, current, {script.revision for script in scripts.walk_revisions()})
    with Operations.context(context):
        for script in reversed(list(scripts.iterate_revisions("head", current or "base"))):
            script.module.upgrade()
            reach("coord.migrate.after_step")
            context.stamp(scripts, script.revision)


def known_revisions() -> list[str]:
    """Of this program, oldest first."""
    return sorted(script.revision for script in _scripts().walk_revisions())


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def _refuse_foreign(connection: Connection, current: str | None, known: set[str]) -> None:
    if current is None:
        tables = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
        if tables:
            raise Conflict(
                f"the database holds tables that are not Windlass's ({', '.join(sorted(tables)[:3])}, ...): "
                "name another data directory"
            )
    elif current not in known:
        raise Conflict(
            f"the database has schema {current}, unknown to this version (newest here: {max(known)}): "
            "start the newer version that wrote it"
        )
