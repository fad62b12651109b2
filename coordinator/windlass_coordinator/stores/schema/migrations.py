"""Brings a database to the newest schema, or refuses it, in one transaction.

Alembic runs the numbered files of `versions/`. What must never happen: an empty database made over a
foreign or damaged one, or an older program working on a newer schema.
"""

from pathlib import Path
from types import ModuleType

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
    _refuse_foreign(connection, current)
    with Operations.context(context):
        for script in reversed(list(scripts.iterate_revisions("head", current or "base"))):
            script.module.upgrade()
            reach("coord.migrate.after_step")
            context.stamp(scripts, script.revision)


def known_revisions() -> list[str]:
    """Of this program, oldest first."""
    return sorted(script.revision for script in _scripts().walk_revisions())


def load_revision(revision: str) -> ModuleType:
    """One numbered file."""
    return _scripts().get_revision(revision).module


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def refuse_newer(revision: str) -> None:
    """Raises Conflict for a schema that this program does not know."""
    known = known_revisions()
    if revision not in known:
        raise Conflict(
            f"the database has schema {revision}, unknown to this version (newest here: {known[-1]}): "
            "start the newer version that wrote it"
        )


def _refuse_foreign(connection: Connection, current: str | None) -> None:
    if current is not None:
        refuse_newer(current)
        return
    tables = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
    if tables:
        raise Conflict(
            f"the database holds tables that are not Windlass's ({', '.join(sorted(tables)[:3])}, ...): "
            "name another data directory"
        )
