"""Who this node is to its coordinator: kept in the state directory, readable by the agent's user only."""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from windlass_agent.spool.durable import write_whole
from windlass_proto.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    state_id: str
    """Random, made with the state directory: tells the coordinator when it was wiped."""
    node_id: str = ""
    """"" = not joined yet."""
    credential: str = ""
    cluster: str = ""
    last_nonce: str = ""
    """Of the newest session; a copy of this directory on a second machine cannot know it."""

    def __repr__(self) -> str:
        return f"NodeIdentity(node_id={self.node_id!r}, secrets hidden)"


def load_identity(path: Path) -> NodeIdentity:
    """From the file, or a new one when there is none."""
    try:
        document = json.loads(path.read_text())
        return NodeIdentity(**document)
    except FileNotFoundError:
        return NodeIdentity(state_id=secrets.token_hex(16))
    except (ValueError, TypeError) as problem:
        raise InvalidRequest(
            f"{path} is damaged ({problem}); remove the state directory and join again"
        ) from problem


def save_identity(path: Path, identity: NodeIdentity) -> None:
    """Written beside the old one and renamed: a crash leaves one or the other.

    On a full disk it is written over the old one, which has its place already: a nonce that was lost would
    make this node pass for a copy of itself.
    """
    data = json.dumps(asdict(identity)).encode()
    try:
        write_whole(path, data)
    except OSError:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if os.pwrite(descriptor, data.ljust(size), 0) < len(data):
                raise
        finally:
            os.close(descriptor)
