"""A job that is removed takes its idempotency key along without a search through all of them."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("submissions_by_job", "submissions", ["job_id"])
