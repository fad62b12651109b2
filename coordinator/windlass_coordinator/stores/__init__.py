"""Databases behind one seam: `base.py` says what they must do, `open_store` opens the one that is meant."""

from windlass_coordinator.stores.base import Store
from windlass_coordinator.stores.condition import StoreCondition
from windlass_proto.errors import InvalidRequest


def open_store(url: str, *, condition: StoreCondition | None = None) -> Store:
    """Opens `sqlite:///PATH` (or `sqlite:///:memory:`), which keeps `condition` up to date. Raises
    InvalidRequest for another kind of URL."""
    scheme, _, rest = url.partition("://")
    match scheme:
        case "sqlite":
            from windlass_coordinator.stores.sqlite.store import SqliteStore

            return SqliteStore(rest.removeprefix("/"), condition=condition)
        case _:
            raise InvalidRequest(f"store: no such kind of database: {url!r}; must be like sqlite:///PATH")
