"""What a new data directory gets: the admin token, the default cluster; and one process at a time."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from windlass_coordinator.auth.tokens import RANDOM_BYTES, TokenKind, new_token
from windlass_coordinator.stores.base import Store, Transaction
from windlass_coordinator.stores.machines import Credential
from windlass_proto.errors import Conflict
from windlass_proto.model.ids import DEFAULT_CLUSTER, DEFAULT_TENANT

ADMIN_TOKEN_FILE = "admin.token"
LOCK_FILE = "lock"


@contextmanager
def exclusive(data: Path) -> Iterator[None]:
    """Makes the directory ours alone. Raises Conflict that names the process that has it."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data / LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise Conflict(
                f"{data} is in use by another coordinator (pid {holder}): stop it first"
            ) from error
        with suppress(OSError):  # on a full disk nobody is told who has it, but it is ours
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        yield


def is_held(lock: Path) -> bool:
    """Whether a coordinator runs on the directory of this lock file; makes no file."""
    try:
        with lock.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def prepare(store: Store, data: Path) -> Path | None:
    """Makes what is missing; returns the file of the admin token when it was made just now."""
    store.run_now(_add_default_cluster)
    file = data / ADMIN_TOKEN_FILE
    if file.exists():
        return None
    token = new_token(TokenKind.ADMIN, randomness=secrets.token_bytes(RANDOM_BYTES))
    credential = Credential(
        token_id=token.token_id, kind=token.kind.value, digest=token.digest, tenant=DEFAULT_TENANT
    )
    store.run_now(lambda tx: tx.add_credential(credential, now=datetime.now(UTC)))
    # Stored first, written second: a crash between the two leaves a record nobody can use, not a dead file.
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w") as out:
        out.write(token.text + "\n")
    return file


def _add_default_cluster(tx: Transaction) -> None:
    if tx.cluster_key(DEFAULT_TENANT, DEFAULT_CLUSTER) is None:
        tx.add_cluster(
            DEFAULT_TENANT, DEFAULT_CLUSTER, description="made at the first start", now=datetime.now(UTC)
        )
