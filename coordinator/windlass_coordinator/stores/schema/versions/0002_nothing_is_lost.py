"""Drain and quarantine, retries on another node, roles of several coordinators."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("nodes", sa.Column("wish", sa.Text, nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("reason", sa.Text, nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("drain_by", sa.BigInteger))
    op.add_column("nodes", sa.Column("prepare_failed_jobs", sa.Text, nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("heard", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("instances", sa.Column("avoid_node", sa.BigInteger))
    op.add_column("ready_again", sa.Column("avoid_node", sa.BigInteger))
    op.add_column("ready_again", sa.Column("avoid_until", sa.BigInteger))
    op.create_index(
        "ready_again_avoided",
        "ready_again",
        ["avoid_until"],
        sqlite_where=sa.text("avoid_until IS NOT NULL"),
        postgresql_where=sa.text("avoid_until IS NOT NULL"),
    )
    op.create_table(
        "roles",
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
