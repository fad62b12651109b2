"""A world whose coordinators share a PostgreSQL database and a directory of logs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg

from tests.support.invariants import Rows
from tests.support.world import World
from tests.support.world_processes import CoordinatorProgram

_PROFILE = {"ROLE_BEAT_EVERY": "500ms", "ROLE_TAKE_AFTER": "3s"}


def on_postgres(world: World, url: str, *, via: str = "") -> None:
    """The world's coordinator keeps its books in this database; `via` = how it reaches it."""
    logs = {"LOGS": str(world.directory / "logs")}
    world.coordinator.settings |= {"STORE": via or url, **logs, **_PROFILE}
    world.read_rows = partial(tables, url)


def add_coordinator(world: World) -> CoordinatorProgram:
    """Another one on the same database and logs; not started."""
    made = world.new_coordinator(world.directory / "second", name="second")
    made.settings = dict(world.coordinator.settings)
    world.others.append(made)
    return made


def reach_both(world: World, other: CoordinatorProgram) -> str:
    """Both addresses, for agents; the world's client uses them too."""
    both = f"{world.coordinator.address},{other.address}"
    world._client = world.new_client(via=both)
    return both


@contextmanager
def tables(url: str) -> Iterator[Rows]:
    """As they are at one moment."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

        # Rows are untyped: their columns are those of the query.
        def rows(query: str, *values: object) -> Sequence[tuple[Any, ...]]:
            return connection.execute(query.replace("?", "%s").encode(), values or None).fetchall()

        yield rows


def holder_of_duties(url: str) -> tuple[str, int]:
    """Who holds the role now, and in which term."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT holder, term FROM roles WHERE role = 'sweeper'").fetchone()
    return ("", 0) if row is None else (row[0], row[1])
