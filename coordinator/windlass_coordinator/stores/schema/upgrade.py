"""Runs the numbered files of `versions/`, with Alembic."""

from types import ModuleType

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from windlass_proto.failpoints import reach


def upgrade(connection: Connection, current: str | None) -> None:
    """From revision `current` (None: there is nothing yet) to the newest, in the connection's transaction."""
    scripts = _scripts()
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        for script in reversed(list(scripts.iterate_revisions("head", current or "base"))):
            script.module.upgrade()
            reach("coord.migrate.after_step")
            context.stamp(scripts, script.revision)


def load_revision(revision: str) -> ModuleType:
    """One numbered file."""
    return _scripts().get_revision(revision).module


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "windlass_coordinator.stores:schema")
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)
