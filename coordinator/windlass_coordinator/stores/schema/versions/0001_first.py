"""The first schema."""

from alembic import op

from windlass_coordinator.stores.schema.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes all tables. When a second migration comes, this one gets its own frozen copy of the tables."""
    metadata.create_all(op.get_bind())
