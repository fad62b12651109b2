"""A real PostgreSQL server for tests: one for a whole test run, a database for each test; or one of its own.

Without fsync, as nothing here outlives the machine; tests of durability ask for a server with it.
"""

import atexit
import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.s3_server import free_port

_BINARIES = Path("/usr/lib/postgresql/15/bin")
_USER = "postgres"
_DEADLINE_S = 30.0

_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
fsync = {fsync}
full_page_writes = {fsync}
max_connections = {max_connections}
shared_buffers = 64MB
log_min_messages = warning
"""


def why_there_is_none() -> str | None:
    """Why no server can be started here; None = it can."""
    if _find("initdb") is None:
        return "PostgreSQL is not installed (initdb is neither on PATH nor in /usr/lib/postgresql/15/bin)"
    return None


class PostgresServer:
    """A cluster in a folder of its own, with its server."""

    def __init__(self, *, fsync: bool = False, max_connections: int = 200) -> None:
        reason = why_there_is_none()
        if reason is not None:
            pytest.skip(reason)
        self.folder = Path(tempfile.mkdtemp(prefix="windlass-pg-"))
        self.port = free_port()
        self._numbers = itertools.count(1)
        self._server: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER, _USER)
        initdb = [_binary("initdb"), "-D", str(self._data), "-U", _USER, "-A", "trust", "--no-sync"]
        _run([*initdb, "--locale=C", "--encoding=UTF8"])
        settings = _SETTINGS.format(
            port=self.port,
            folder=self.folder,
            fsync="on" if fsync else "off",
            max_connections=max_connections,
        )
        with (self._data / "postgresql.conf").open("a") as out:
            out.write(settings)
        self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def new_database(self, *, template: str = "template0") -> str:
        """The URL of a database of its own."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """As the superuser; what it returns, if anything."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def backends(self) -> list[int]:
        """Processes that serve coordinators."""
        rows = self.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'windlass-coordinator' ORDER BY pid"
        )
        return [row[0] for row in rows]

    def start(self) -> None:
        """Returns when it answers."""
        command = _as_user([_binary("postgres"), "-D", str(self._data)])
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.02)

    def stop_at_once(self) -> None:
        """As in a crash of the server: nothing is finished, the next start recovers from the log."""
        assert self._server is not None
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(_DEADLINE_S)
        self._server = None

    def remove(self) -> None:
        """Stops it and deletes all."""
        if self._server is not None:
            self.stop_at_once()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def shared_server() -> PostgresServer:
    """The server of this test process; it ends with it."""
    server = PostgresServer()
    atexit.register(server.remove)
    return server


@functools.cache
def _migrated() -> str:
    """The name of a database with our tables and nothing in them."""
    from windlass_coordinator.stores import open_store

    url = shared_server().new_database()
    open_store(url).close()
    return url.rpartition("/")[2]


def new_database() -> str:
    """The URL of a database of our own on the shared server; skips the test when there can be none."""
    return shared_server().new_database(template=_migrated() if why_there_is_none() is None else "")


@contextmanager
def own_server(*, fsync: bool = False, max_connections: int = 200) -> Iterator[PostgresServer]:
    """For tests that stop it, starve it or kill its processes."""
    server = PostgresServer(fsync=fsync, max_connections=max_connections)
    try:
        yield server
    finally:
        server.remove()


def _find(name: str) -> str | None:
    beside = _BINARIES / name
    return str(beside) if beside.exists() else shutil.which(name)


def _binary(name: str) -> str:
    found = _find(name)
    assert found is not None
    return found


def _as_user(command: Sequence[str]) -> list[str]:
    """It refuses to run as root; and it must not outlive the tests."""
    identity = ["--reuid", _USER, "--regid", _USER, "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *identity, "--pdeathsig", "QUIT", *command]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        _as_user(command), capture_output=True, text=True, timeout=_DEADLINE_S, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
