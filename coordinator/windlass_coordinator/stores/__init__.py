"""Databases behind one seam: `base.py` says what they must do, `open_store` opens the one that is meant."""

from windlass_coordinator.stores.base import Store
from windlass_coordinator.stores.condition import StoreCondition
from windlass_proto.errors import InvalidRequest


def is_shared(url: str) -> bool:
    """Whether several coordinators may work on such a database at once."""
    return not url.startswith("sqlite:")


def open_store(url: str, *, condition: StoreCondition | None = None) -> Store:
    """Opens `sqlite:///PATH` (or `sqlite:///:memory:`) or `postgresql://...`, which keeps `condition` up to
    date. Raises InvalidRequest for another kind of URL."""
    scheme, _, rest = url.partition("://")
    match scheme:
        case "sqlite":
            from windlass_coordinator.stores.sqlite.store import SqliteStore

            return SqliteStore(rest.removeprefix("/"), condition=condition)
        case "postgresql" | "postgres":
            return _open_postgres(url, condition)
        case _:
            raise InvalidRequest(
                f"store: no such kind of database: {scheme!r}; must be like sqlite:///PATH or "
                "postgresql://USER@HOST/DATABASE"
            )


def _open_postgres(url: str, condition: StoreCondition | None) -> Store:
    try:
        from windlass_coordinator.stores.postgres.store import PostgresStore
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "psycopg":
            raise
        raise InvalidRequest(
            "store: PostgreSQL needs another package: pip install 'windlass[postgres]'"
        ) from error
    return PostgresStore(url, condition=condition)
