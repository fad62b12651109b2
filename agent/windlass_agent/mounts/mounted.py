"""What is mounted for an attempt, as it is written down below its directory: found again by the next agent.

<attempt>/inputs/       readable by the agent alone
  mounted.json          the daemon, and what it mounted
  verdict.json          why its mounts cannot be trusted, once that was asked
  fuse/                 rclone's mount: one directory per object input
  cache/                what was read of it
  scratch/N/            what the command makes beside the files of input N
  net/N/                the mount of network input N
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from windlass_agent.mounts.kernel import KnownProcess
from windlass_agent.spool.durable import write_whole

FOLDER = "inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    boot_id: str
    daemon: KnownProcess | None
    points: dict[str, str]
    """Where the agent's own mounts are, and the device of each."""


def write_mounted(root: Path, mounted: Mounted) -> None:
    write_whole(root / FOLDER / "mounted.json", json.dumps(asdict(mounted)).encode())


def read_mounted(root: Path) -> Mounted | None:
    """None when nothing was mounted; a damaged record is one of an agent that was interrupted."""
    try:
        document = json.loads((root / FOLDER / "mounted.json").read_bytes())
        daemon = document["daemon"]
        return Mounted(
            boot_id=document["boot_id"],
            daemon=KnownProcess(**daemon) if daemon else None,
            points=document["points"],
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_verdict(root: Path, reason: str) -> None:
    write_whole(root / FOLDER / "verdict.json", json.dumps({"reason": reason}).encode())


def read_verdict(root: Path) -> str | None:
    try:
        return str(json.loads((root / FOLDER / "verdict.json").read_bytes())["reason"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def forget_mounted(root: Path) -> None:
    """Nothing of it is there any more; the verdict stays."""
    (root / FOLDER / "mounted.json").unlink(missing_ok=True)
