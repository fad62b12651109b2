"""The tables, as SQLAlchemy sees them: the source for migrations, listings and administration.

The hot verbs use prepared statements on the raw driver (decision D1 of the architecture); the names in
them are these. Times are microseconds since 1970 UTC; states are the words of `windlass_proto.model.states`.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()

# SQLite makes a row id of INTEGER PRIMARY KEY only, not of BIGINT.
_Key = BigInteger().with_variant(Integer, "sqlite")


def _number(name: str, default: int = 0) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text(str(default)))


def _text(name: str, default: str | None = None) -> Column[str]:
    server_default = None if default is None else text(f"'{default}'")
    return Column(name, Text, nullable=False, server_default=server_default)


meta = Table("meta", metadata, Column("key", Text, primary_key=True), _text("value"))

credentials = Table(
    "credentials",
    metadata,
    Column("token_id", Text, primary_key=True),
    _text("kind"),
    _text("digest"),
    _text("tenant"),
    Column("cluster_key", BigInteger),
    Column("node_key", BigInteger),
    Column("uses_left", Integer),
    Column("expires_at", BigInteger),
    _number("revoked"),
    _number("created_at"),
)

clusters = Table(
    "clusters",
    metadata,
    Column("cluster_key", _Key, primary_key=True),
    _text("tenant"),
    _text("name"),
    _text("description", ""),
    _number("created_at"),
)
Index("clusters_by_name", clusters.c.tenant, clusters.c.name, unique=True)

nodes = Table(
    "nodes",
    metadata,
    Column("node_key", _Key, primary_key=True),
    Column("node_id", Text, nullable=False, unique=True),
    _text("tenant"),
    Column("cluster_key", ForeignKey("clusters.cluster_key"), nullable=False),
    _text("name"),
    _text("state"),
    _text("state_id", ""),
    _text("boot_id", ""),
    _number("epoch"),
    _text("nonce", ""),
    _text("last_nonce", ""),
    _number("slots"),
    Column("cpu", Float, nullable=False, server_default=text("0")),
    _number("memory_bytes"),
    _number("gpus"),
    _text("agent_version", ""),
    _text("os", ""),
    _text("containment", ""),
    # What its operator or its failures made of it ('' = nothing); the state it takes when it has a session.
    _text("wish", ""),
    _text("reason", ""),
    Column("drain_by", BigInteger),
    _text("prepare_failed_jobs", ""),
    # Counts signs of life, in batches; how long it has stood still is judged by whoever watches it.
    _number("heard"),
    _number("joined_at"),
    Column("last_seen_at", BigInteger),
)
Index("nodes_by_cluster", nodes.c.cluster_key)

jobs = Table(
    "jobs",
    metadata,
    Column("job_key", _Key, primary_key=True),
    Column("job_id", Text, nullable=False, unique=True),
    _text("tenant"),
    _text("name"),
    _text("description", ""),
    _text("state"),
    _text("reason", ""),
    Column("stop_as", Text),
    _number("fail_fast", 1),
    _number("generation", 1),
    _number("priority"),
    _number("tasks_open"),
    _number("delete_when_done"),
    _number("submitted_at"),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("deleted_at", BigInteger),
)
Index(
    "jobs_listed",
    jobs.c.tenant,
    jobs.c.job_key,
    sqlite_where=text("deleted_at IS NULL"),
    postgresql_where=text("deleted_at IS NULL"),
)

submissions = Table(
    "submissions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("idempotency_key", Text, primary_key=True),
    _text("request_digest"),
    _text("job_id"),
)
Index("submissions_by_job", submissions.c.job_id)

tasks = Table(
    "tasks",
    metadata,
    Column("task_key", _Key, primary_key=True),
    Column("job_key", ForeignKey("jobs.job_key"), nullable=False),
    _text("name"),
    _number("position"),
    _text("state"),
    _text("reason", ""),
    Column("cluster_key", ForeignKey("clusters.cluster_key"), nullable=False),
    _number("priority"),
    _number("has_work"),
    _number("instance_count"),
    _number("next_index"),
    _number("blocked_by"),
    _number("ready_again"),
    _number("active"),
    _number("retry_wait"),
    _number("succeeded"),
    _number("failed"),
    _number("stopped"),
    _number("max_retries"),
    Column("cpu", Float, nullable=False, server_default=text("0")),
    _number("memory_bytes"),
    _number("slots", 1),
    _number("gpus"),
    Column("spec", LargeBinary, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
)
Index("tasks_by_job", tasks.c.job_key, tasks.c.position)
Index(
    "tasks_claimable",
    tasks.c.cluster_key,
    tasks.c.priority.desc(),
    tasks.c.task_key,
    sqlite_where=text("has_work = 1"),
    postgresql_where=text("has_work = 1"),
)

edges = Table(
    "edges",
    metadata,
    Column("parent_key", BigInteger, primary_key=True),
    Column("child_key", BigInteger, primary_key=True),
    sqlite_with_rowid=False,
)
Index("edges_by_child", edges.c.child_key)

instances = Table(
    "instances",
    metadata,
    Column("task_key", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    _text("state"),
    _number("attempt"),
    _number("fence"),
    _number("user_failures"),
    _number("infra_failures"),
    Column("due_at", BigInteger),
    Column("avoid_node", BigInteger),
    sqlite_with_rowid=False,
)
Index(
    "instances_due",
    instances.c.due_at,
    sqlite_where=text("due_at IS NOT NULL"),
    postgresql_where=text("due_at IS NOT NULL"),
)

ready_again = Table(
    "ready_again",
    metadata,
    Column("task_key", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    # Another node is to have it, until then.
    Column("avoid_node", BigInteger),
    Column("avoid_until", BigInteger),
    sqlite_with_rowid=False,
)
Index(
    "ready_again_avoided",
    ready_again.c.avoid_until,
    sqlite_where=text("avoid_until IS NOT NULL"),
    postgresql_where=text("avoid_until IS NOT NULL"),
)

# What tasks need to reach other systems, encrypted under a key that is not in the database.
secrets = Table(
    "secrets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    _text("kind"),
    Column("sealed", LargeBinary, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

# The attempt that may publish, or has published, the outputs of an instance.
published = Table(
    "published",
    metadata,
    Column("task_key", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("manifest_digest", Text, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

# One of several coordinators does the periodic duties: it has the role in this term while its beat grows.
roles = Table(
    "roles",
    metadata,
    Column("role", Text, primary_key=True),
    _text("holder"),
    _number("term"),
    _number("beat"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("task_key", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("fence", BigInteger, nullable=False),
    Column("node_key", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("poll_seq", BigInteger, nullable=False),
    _text("state"),
    _number("detached"),
    Column("leased_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("failure", Text),
    Column("reason", Text),
    Column("exit_code", Integer),
    Column("exit_signal", Integer),
    Column("ran_for_us", BigInteger),
    Column("user_cpu_us", BigInteger),
    Column("system_cpu_us", BigInteger),
    Column("peak_memory_bytes", BigInteger),
    Column("stdout_end", BigInteger),
    Column("stderr_end", BigInteger),
    Column("image_digest", Text),
    sqlite_with_rowid=False,
)
Index(
    "attempts_live",
    attempts.c.node_key,
    sqlite_where=text("ended_at IS NULL"),
    postgresql_where=text("ended_at IS NULL"),
)

# Nearly always empty, so that each poll and heartbeat may ask it.
Index(
    "attempts_stopping",
    attempts.c.node_key,
    sqlite_where=text("state = 'STOPPING'"),
    postgresql_where=text("state = 'STOPPING'"),
)

facts = Table(
    "facts",
    metadata,
    Column("seq", _Key, primary_key=True),
    _number("at"),
    _text("tenant"),
    _text("kind"),
    Column("job_key", BigInteger),
    Column("task_key", BigInteger),
    Column("node_key", BigInteger),
    _text("payload", ""),
    sqlite_autoincrement=True,
)
