"""Whether what users have stored can be opened with the master key file."""

import sqlite3
from pathlib import Path

from windlass_coordinator.auth.sealing import MASTER_KEY_FILE, Sealer, read_keys
from windlass_proto.errors import Conflict
from windlass_proto.model.diagnosis import Finding, good, note, problem

_BRING_IT = "bring the key file that they were sealed under, or let users delete and put all of them again"


def look_at_secrets(db: sqlite3.Connection, data: Path) -> Finding:
    """Nothing is opened: what is sealed tells under which key."""
    file = data / MASTER_KEY_FILE
    stored = [row[0] for row in db.execute("SELECT sealed FROM secrets")]
    if not file.exists() and stored:
        told = f"it is not there, and {len(stored)} secrets are sealed; master_key may name another place"
        return note("secrets.key", file, told, do=_BRING_IT)
    if not file.exists():
        return note("secrets.key", file, "it is not there", do="the next start of the coordinator makes one")
    try:
        sealer = Sealer(read_keys(file), origin=str(file))
    except Conflict as wrong:
        return problem("secrets.key", file, str(wrong), do="mend it: with this one a start is refused")
    closed = sum(not sealer.can_open(sealed) for sealed in stored)
    if closed:
        told = f"{closed} of {len(stored)} stored secrets are sealed under another key"
        return problem("secrets.key", file, told, do=_BRING_IT)
    told = (
        f"it opens all {len(stored)} stored secrets; backups do not hold it, so keep a copy apart from them"
    )
    return good("secrets.key", file, told)
