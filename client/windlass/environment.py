"""The one place that reads the process environment."""

import os
from pathlib import Path

_CERTIFICATE_VARIABLES = frozenset({"AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"})
_LAPTOP_SETTINGS = {
    "WINDLASS_COORDINATOR_LIMITS_LOCAL_FILES": "true",
    "WINDLASS_AGENT_LOCAL_DIRECTORIES": "/",
}


def profile_file() -> Path | None:
    """WINDLASS_PROFILE: the profile to use when none is given."""
    value = os.environ.get("WINDLASS_PROFILE", "")
    return Path(value) if value else None


def data_directory() -> Path:
    """WINDLASS_DATA: where laptop mode keeps everything; ~/.local/share/windlass when not set."""
    value = os.environ.get("WINDLASS_DATA", "")
    return Path(value).absolute() if value else Path.home() / ".local" / "share" / "windlass"


def for_children() -> dict[str, str]:
    """The environment that programs started by laptop mode get. Its jobs run as whoever started it, who can
    read the machine's files anyway: they may map them (`file://`)."""
    return _LAPTOP_SETTINGS | os.environ


def for_object_store() -> dict[str, str]:
    """Without the variables that make rclone refuse to start, or that change its settings unseen."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _CERTIFICATE_VARIABLES and not name.startswith(("RCLONE_", "AWS_"))
    }
