"""Who this node is to its coordinator: kept in the state directory, readable by the agent's user only."""

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

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
    """Written beside the old one and renamed: a crash leaves one or the other."""
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(identity), file)
    beside.replace(path)
