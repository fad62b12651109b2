"""What a transaction holds, so that verbs of several coordinators run at once and none notices.

A verb is written as if it were alone. Under READ COMMITTED this is true as long as what it decides on stands
still from its reading to its commit. Two locks are enough for that:

- **A job's row** (FOR UPDATE) stands for the whole job: its tasks, edges, instances, attempts and counters.
  Whoever changes any of them, or reads them to decide on them, holds it. Attempts that are terminal never
  change, so they are read without.
- **A node's row**: whoever changes its session or its state, or needs all of its live attempts, holds it FOR
  UPDATE; a claim for the node holds it FOR KEY SHARE. Heartbeats' counters (an update of other columns) wait
  for nobody who claims, but for a claim of GPUs, which holds it FOR NO KEY UPDATE: two of those at once
  would give the same GPUs twice.

The order is: role, cluster, nodes, then jobs, each kind in the order of its keys. A verb that comes to need a
lock out of this order is undone and runs anew in a transaction that begins with it (`RunAgain`); so does one
that has read a node, and finds it changed when it locks it. Claims take what is free: they pass over jobs and
nodes that are locked (SKIP LOCKED), note it, and are repeated (`follower`).

Rows that no job and no node owns (credentials, submissions) are changed by one statement that says what it
expects. Should a deadlock be left over, PostgreSQL ends it and `transact` repeats the verb.
"""

from collections.abc import Collection, Sequence
from typing import Any

from psycopg import RawCursor

from windlass_coordinator.stores.postgres.arrays import ints
from windlass_proto.model.ids import AttemptRef, NodeKey

_LOCK_JOBS = "SELECT job_key FROM jobs WHERE job_key = ANY($1::bigint[]) ORDER BY job_key FOR UPDATE"

_LOCK_JOBS_OF_TASKS = """
SELECT job_key FROM jobs
WHERE job_key IN (SELECT job_key FROM tasks WHERE task_key = ANY($1::bigint[]))
ORDER BY job_key FOR UPDATE"""

_JOBS_OF_TASKS = "SELECT DISTINCT job_key FROM tasks WHERE task_key = ANY($1::bigint[])"

_JOBS_OF_LIVE = """
SELECT DISTINCT t.job_key FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) r(task_key, idx, attempt)
JOIN attempts a ON a.task_key = r.task_key AND a.idx = r.idx AND a.attempt = r.attempt AND a.ended_at IS NULL
JOIN tasks t ON t.task_key = a.task_key"""

_JOBS_OF_NODE = """
SELECT DISTINCT t.job_key FROM attempts a JOIN tasks t ON t.task_key = a.task_key
WHERE a.node_key = $1 AND a.ended_at IS NULL"""

_LOCK_NODE = """
SELECT state, epoch, nonce, wish, drain_by, prepare_failed_jobs FROM nodes WHERE node_key = $1 FOR UPDATE"""


class RunAgain(Exception):
    """The verb has to run anew, in a new transaction that holds these from its beginning, in the right order;
    or none, when what it has read of a node was changed before it could be locked."""

    def __init__(self, *, nodes: Collection[int] = (), jobs: Collection[int] = ()) -> None:
        super().__init__(f"nodes {sorted(nodes)}, jobs {sorted(jobs)} are to be locked first")
        self.nodes = frozenset(nodes)
        self.jobs = frozenset(jobs)


class PostgresLocks:
    """A cursor, and what the transaction on it has begun and locked.

    A transaction begins with its first lock or change: until then each statement sees what is committed,
    which is all that READ COMMITTED would give it too."""

    def __init__(
        self,
        cursor: RawCursor[Any],
        *,
        incarnation: int,
        nodes_first: Collection[int] = (),
        jobs_first: Collection[int] = (),
    ) -> None:
        """`nodes_first` and `jobs_first` are locked when the transaction begins."""
        self._cursor = cursor
        self._sender = RawCursor(cursor.connection)
        self._queued: list[tuple[str, Sequence[object]]] = []
        self._incarnation = incarnation
        self._nodes_first = sorted(nodes_first)
        self._jobs_first = sorted(jobs_first)
        self._jobs: set[int] = set()
        self._nodes: set[int] = set()
        self._nodes_read: dict[int, tuple[object, ...]] = {}
        self.has_begun = False
        self.has_written = False
        self.has_skipped = False
        """Something that another transaction holds was passed over: look again when that is done."""

    # Rows are untyped: the driver knows no column types.

    def _rows(self, query: str, *values: object) -> list[Any]:
        """Reads."""
        self._execute(query, values)
        return self._cursor.fetchall()

    def _row(self, query: str, *values: object) -> Any:
        """Reads one row or none."""
        self._execute(query, values)
        return self._cursor.fetchone()

    def _rows_beside(self, table: str, query: str, *values: object) -> list[Any]:
        """Reads from one table, before what is on its way to others."""
        if any(table in queued for queued, _ in self._queued):
            return self._rows(query, *values)
        self._cursor.execute(query, values, prepare=True)
        return self._cursor.fetchall()

    def _lock(self, query: str, *values: object) -> list[Any]:
        """Reads rows and holds them until the end."""
        self._begin()
        return self._rows(query, *values)

    def _change(self, query: str, *values: object) -> None:
        """Writes; goes to the database together with what comes next."""
        self._begin()
        self.has_written = True
        self._queued.append((query, values))

    def _change_counted(self, query: str, *values: object) -> int:
        """Writes; how many rows."""
        self._begin()
        self.has_written = True
        self._execute(query, values)
        return self._cursor.rowcount

    def _change_returning(self, query: str, *values: object) -> list[Any]:
        """Writes, and reads what it wrote."""
        self._change_counted(query, *values)
        return self._cursor.fetchall()

    def _execute(self, query: str, values: Sequence[object]) -> None:
        if not self._queued:
            self._cursor.execute(query, values, prepare=True)
            return
        with self._cursor.connection.pipeline():
            self.send_queued()
            self._cursor.execute(query, values, prepare=True)

    def send_queued(self) -> None:
        """What was written and is not on its way yet; inside a pipeline."""
        queued, self._queued = self._queued, []
        for query, values in queued:
            self._sender.execute(query, values, prepare=bool(values))

    def _begin(self) -> None:
        if self.has_begun:
            return
        self._queued.append(("BEGIN", ()))
        self.has_begun = True
        for node_key in self._nodes_first:
            self._lock_node(NodeKey(node_key))
        if self._jobs_first:
            self._lock_jobs(self._jobs_first)

    def _lock_jobs(self, keys: Collection[int]) -> None:
        self._begin()
        missing = [key for key in keys if key not in self._jobs]
        if not missing:
            return
        if self._jobs and min(missing) < max(self._jobs):
            raise RunAgain(nodes=self._nodes, jobs=self._jobs.union(missing))
        self._jobs.update(row[0] for row in self._lock(_LOCK_JOBS, ints(missing)))

    def _lock_jobs_of_tasks(self, task_keys: Collection[int]) -> None:
        self._begin()
        if self._jobs:
            self._lock_jobs([row[0] for row in self._rows(_JOBS_OF_TASKS, ints(task_keys))])
        else:
            self._jobs.update(row[0] for row in self._lock(_LOCK_JOBS_OF_TASKS, ints(task_keys)))

    def _lock_jobs_of_attempts(self, refs: Sequence[AttemptRef]) -> None:
        """Those of live attempts only, when others are held already: the rest stands still anyway."""
        self._begin()
        if not self._jobs:
            self._lock_jobs_of_tasks({ref.task_key for ref in refs})
            return
        columns = zip(*[(ref.task_key, ref.index, ref.attempt) for ref in refs], strict=True)
        rows = self._rows(_JOBS_OF_LIVE, *[ints(column) for column in columns])
        self._lock_jobs([row[0] for row in rows])

    def _lock_node(self, node_key: NodeKey) -> None:
        """The node's session and state stand still."""
        self._begin()
        if node_key in self._nodes:
            return
        if self._jobs:
            raise RunAgain(nodes=self._nodes | {node_key}, jobs=self._jobs)
        rows = self._lock(_LOCK_NODE, node_key)
        read = self._nodes_read.get(node_key)
        if read is not None and [read] != rows:
            raise RunAgain(nodes=self._nodes | {node_key})
        self._nodes.add(node_key)

    def _lock_node_and_its_jobs(self, node_key: NodeKey) -> None:
        """All its live attempts stand still, and it gets no new ones."""
        self._lock_node(node_key)
        self._lock_jobs([row[0] for row in self._rows(_JOBS_OF_NODE, node_key)])
