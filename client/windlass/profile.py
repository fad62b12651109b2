"""Which coordinator to talk to, as whom, and where files are stored.

A profile is a small TOML file; `windlass up` writes one. Its keys:

    coordinator = "127.0.0.1:7070"
    token_file = "coordinator/admin.token"
    storage_file = "storage.toml"
    bucket = "windlass"

Relative paths count from the profile's own folder.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from windlass import environment
from windlass_proto.errors import Denied, InvalidRequest, NotFound
from windlass_proto.model.storage import StorageProfiles, profiles_from_mapping

PROFILE_NAME = "client.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Everything a client needs to know before its first call."""

    coordinator: str
    """host:port of the coordinator's gRPC listener; several with commas between, of which the first that
    answers is used."""
    token_file: Path | None = None
    """File with the bearer token; None = no token is sent."""
    storage_file: Path | None = None
    """TOML file of storage profiles; None = no object store is known here."""
    bucket: str = "windlass"
    """Bucket that gets uploaded packages."""

    def token(self) -> str:
        """The bearer token, "" when the profile names none."""
        if self.token_file is None:
            return ""
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Denied(
                f"cannot read the token file {self.token_file}: {_why(error)}; see token_file in the profile"
            ) from error

    def storage(self) -> StorageProfiles:
        """The storage profiles; none when the profile names no file."""
        if self.storage_file is None:
            return StorageProfiles(by_scheme={})
        document = _read_toml(self.storage_file)
        try:
            return profiles_from_mapping(document)
        except ValueError as error:
            raise InvalidRequest(f"{self.storage_file}: {error}") from error


def find_profile(explicit: Path | None = None) -> Profile:
    """The profile given, else that of WINDLASS_PROFILE, else that of laptop mode's data directory."""
    chosen = explicit or environment.profile_file()
    if chosen is not None:
        return load_profile(chosen)
    path = environment.data_directory() / PROFILE_NAME
    if not path.exists():
        raise NotFound(
            f"no coordinator is known here ({path} does not exist): "
            "run `windlass up`, or name a profile with --profile"
        )
    return load_profile(path)


def load_profile(path: Path) -> Profile:
    """Reads a profile file. Raises InvalidRequest that names the key that is wrong."""
    document = _read_toml(path)
    known = [field.name for field in fields(Profile)]
    for key, value in document.items():
        if key not in known:
            raise InvalidRequest(f"{path}: unknown key {key!r}; known are {', '.join(known)}")
        if not isinstance(value, str) or not value:
            raise InvalidRequest(f"{path}: {key} must be a text that is not empty")
    if "coordinator" not in document:
        raise InvalidRequest(f'{path}: coordinator is missing; add coordinator = "host:port"')
    for key in ("token_file", "storage_file"):
        if key in document:
            document[key] = path.parent / Path(document[key]).expanduser()
    return Profile(**document)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"cannot read {path}: {_why(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"{path} is not valid TOML: {error}") from error


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not plain text"
