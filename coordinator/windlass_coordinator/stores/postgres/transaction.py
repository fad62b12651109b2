"""All records over one connection."""

from collections.abc import Collection
from typing import Any

from psycopg import RawCursor

from windlass_coordinator.core.records import Wakes
from windlass_coordinator.stores.postgres.claims import PostgresClaims
from windlass_coordinator.stores.postgres.credentials import PostgresCredentials
from windlass_coordinator.stores.postgres.due import PostgresDue
from windlass_coordinator.stores.postgres.jobs import PostgresJobs
from windlass_coordinator.stores.postgres.logs import PostgresLogs
from windlass_coordinator.stores.postgres.nodes import PostgresNodes
from windlass_coordinator.stores.postgres.publishing import PostgresPublishing
from windlass_coordinator.stores.postgres.reports import PostgresReports
from windlass_coordinator.stores.postgres.restoring import PostgresRestoring
from windlass_coordinator.stores.postgres.retention import PostgresRetention
from windlass_coordinator.stores.postgres.roles import PostgresRoles
from windlass_coordinator.stores.postgres.secrets import PostgresSecrets
from windlass_coordinator.stores.postgres.steering import PostgresSteering


class PostgresTransaction(
    PostgresClaims,
    PostgresReports,
    PostgresDue,
    PostgresLogs,
    PostgresJobs,
    PostgresSteering,
    PostgresNodes,
    PostgresCredentials,
    PostgresRoles,
    PostgresPublishing,
    PostgresSecrets,
    PostgresRetention,
    PostgresRestoring,
):
    """Implements `stores.base.Transaction`."""

    def __init__(
        self,
        cursor: RawCursor[Any],
        *,
        incarnation: int,
        nodes_first: Collection[int] = (),
        jobs_first: Collection[int] = (),
    ) -> None:
        super().__init__(cursor, incarnation=incarnation, nodes_first=nodes_first, jobs_first=jobs_first)
        self.wakes = Wakes()
