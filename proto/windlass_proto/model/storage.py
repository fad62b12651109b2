"""Object URLs and which server they mean.

`oss://`, `cos://` and `s3://` are all S3 servers here (decision D8). A storage profile says which server a
scheme means, and with which credentials. Profiles are data; the library that talks to the server is
wrapped where it is used (client and agent each have their own reasons to move bytes).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

OBJECT_SCHEMES = ("oss", "cos", "s3")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLocation:
    """A bucket and a key (or key prefix) in it."""

    scheme: str
    bucket: str
    key: str
    """Without a leading slash; "" = the whole bucket; ends in "/" for a directory."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def is_directory(self) -> bool:
        return self.key == "" or self.key.endswith("/")

    def child(self, name: str) -> "ObjectLocation":
        """`name` below this directory; the slash between is added where it is missing."""
        base = self.key if self.is_directory else self.key + "/"
        return ObjectLocation(scheme=self.scheme, bucket=self.bucket, key=base + name)


def parse_object_url(url: str) -> ObjectLocation:
    """`oss://bucket/some/key` -> its parts. Raises ValueError that says what would be right."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in OBJECT_SCHEMES:
        raise ValueError(f"must be an object URL such as oss://bucket/path/ (is {url!r})")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise ValueError(f"names no bucket; must be like {scheme}://bucket/path/ (is {url!r})")
    if any(part in (".", "..") for part in key.split("/")):
        raise ValueError(f"must not contain '.' or '..' as a path part (is {url!r})")
    return ObjectLocation(scheme=scheme, bucket=bucket, key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageProfile:
    """An S3 server and how to reach it."""

    endpoint: str
    """Such as `http://127.0.0.1:9000`; "" = the provider's own by region."""
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    path_style: bool = True
    """Bucket in the path instead of the host name: right for most servers that are not a cloud's."""

    def __repr__(self) -> str:
        return f"StorageProfile(endpoint={self.endpoint!r}, region={self.region!r}, secret hidden)"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageProfiles:
    """Which profile serves which scheme."""

    by_scheme: Mapping[str, StorageProfile]

    def for_scheme(self, scheme: str) -> StorageProfile:
        """Raises LookupError with a sentence that says what to configure."""
        if scheme not in self.by_scheme:
            known = ", ".join(sorted(self.by_scheme)) or "none"
            raise LookupError(f"no storage profile for {scheme}:// here (configured: {known})")
        return self.by_scheme[scheme]


def profiles_from_mapping(document: Mapping[str, Any]) -> StorageProfiles:
    """From the form of a storage file:

        [schemes]
        oss = "local"
        [profiles.local]
        endpoint = "http://127.0.0.1:9000"

    Raises ValueError that names the table and key that is wrong.
    """
    unknown = document.keys() - {"schemes", "profiles"}
    if unknown:
        raise ValueError(f"unknown table {sorted(unknown)[0]!r}; known are schemes and profiles")
    profiles = {name: _profile(name, table) for name, table in document.get("profiles", {}).items()}
    for scheme, name in document.get("schemes", {}).items():
        if scheme not in OBJECT_SCHEMES:
            raise ValueError(f"schemes.{scheme}: unknown scheme; known are {', '.join(OBJECT_SCHEMES)}")
        if name not in profiles:
            raise ValueError(f"schemes.{scheme}: there is no profile {name!r}")
    return StorageProfiles(
        by_scheme={scheme: profiles[name] for scheme, name in document.get("schemes", {}).items()}
    )


def _profile(name: str, table: Mapping[str, Any]) -> StorageProfile:
    known = {field.name: field.type for field in fields(StorageProfile)}
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"profiles.{name}.{key}: unknown key; known are {', '.join(known)}")
        if not isinstance(value, bool if key == "path_style" else str):
            raise ValueError(
                f"profiles.{name}.{key}: must be a {'boolean' if key == 'path_style' else 'text'}"
            )
    if "endpoint" not in table:
        raise ValueError(f"profiles.{name}.endpoint: is missing")
    return StorageProfile(**table)
