"""URLs of what is remote, and which server they mean.

Three kinds: objects of a bucket (`oss://`, `cos://`, `s3://` are all S3 servers here, decision D8),
directories of a network file system (`nas://`, `cfs://`, `nfs://`) and, on machines of one's own, directories
of the node itself (`file://`). A storage profile says which server an object scheme means, and with which
credentials. Profiles are data; the library that talks to the server is wrapped where it is used (client and
agent each have their own reasons to move bytes).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

OBJECT_SCHEMES = ("oss", "cos", "s3")
NETWORK_SCHEMES = ("nas", "cfs", "nfs")
LOCAL_SCHEME = "file"

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COS_HOST = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9-]*)\.(?P<host>cos\.[a-z0-9-]+\.myqcloud\.com)")
_PROVIDERS_HOSTS = (".aliyuncs.com", ".amazonaws.com", ".jcloudcs.com", ".jdcloud-oss.com", ".myqcloud.com")
_PROVIDERS_ENDPOINTS = {
    "oss": "https://oss-{region}.aliyuncs.com",
    "cos": "https://cos.{region}.myqcloud.com",
}
_NETWORK = re.compile(
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?P<colon>:(?P<windows>!)?)?(?P<path>/.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLocation:
    """A bucket and a key (or key prefix) in it."""

    scheme: str
    bucket: str
    key: str
    """Without a leading slash; "" = the whole bucket; ends in "/" for a directory."""
    host: str = ""
    """The provider's, where the URL names it, such as `cos.ap-guangzhou.myqcloud.com`."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}{self.host and '.' + self.host}/{self.key}"

    @property
    def is_directory(self) -> bool:
        return self.key == "" or self.key.endswith("/")

    def child(self, name: str) -> "ObjectLocation":
        """`name` below this directory; the slash between is added where it is missing."""
        base = self.key if self.is_directory else self.key + "/"
        return replace(self, key=base + name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLocation:
    """A directory that an NFS server exports."""

    scheme: str
    host: str
    path: str
    """Absolute, on the server."""
    for_windows: bool = False
    """Written as the NFS client of Windows has it, which calls the root `!`; the directory is the same."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{'!' if self.for_windows else ''}{self.path}"

    @property
    def export(self) -> str:
        """As `mount.nfs` wants it."""
        return f"{self.host}:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLocation:
    """A directory of the node itself."""

    path: str
    """Absolute."""

    def __str__(self) -> str:
        return f"{LOCAL_SCHEME}://{self.path}"


Location = ObjectLocation | NetworkLocation | LocalLocation


def parse_location(url: str) -> Location:
    """Any URL that can be mapped. Raises ValueError that says what would be right."""
    scheme = url.partition("://")[0]
    if scheme in NETWORK_SCHEMES:
        return _parse_network(url)
    if scheme == LOCAL_SCHEME:
        return _parse_local(url)
    if scheme in OBJECT_SCHEMES:
        return parse_object_url(url)
    raise ValueError(
        f"must be the URL of a directory such as oss://bucket/path/ or nfs://host:/path/ (is {url!r})"
    )


def parse_object_url(url: str) -> ObjectLocation:
    """`oss://bucket/some/key` -> its parts. Raises ValueError that says what would be right."""
    scheme, separator, rest = url.partition("://")
    _refuse_credentials(rest.partition("/")[0])
    if not separator or scheme not in OBJECT_SCHEMES:
        raise ValueError(f"must be an object URL such as oss://bucket/path/ (is {url!r})")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise ValueError(f"names no bucket; must be like {scheme}://bucket/path/ (is {url!r})")
    _refuse_climbing(key, url)
    if scheme == "cos" and "." in bucket:
        return _parse_cos(bucket, key, url)
    if bucket.endswith(_PROVIDERS_HOSTS):
        raise ValueError(f"must name the bucket without a host, like {scheme}://bucket/path/ (is {url!r})")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            f"must name a bucket of letters, digits, '.', '_' and '-', like {scheme}://bucket/path/"
            f" (is {url!r})"
        )
    return ObjectLocation(scheme=scheme, bucket=bucket, key=key)


def _parse_cos(name: str, key: str, url: str) -> ObjectLocation:
    """With the host of the XML API; the older JSON API's (`bucket.cosgz.myqcloud.com`) is no S3 server."""
    found = _COS_HOST.fullmatch(name)
    if found is None:
        raise ValueError(
            "must name the host of the XML API, like cos://bucket-1250000000.cos.ap-guangzhou.myqcloud.com/path/,"
            f" or only a bucket, like cos://bucket/path/ (is {url!r})"
        )
    return ObjectLocation(scheme="cos", bucket=found["bucket"], key=key, host=found["host"])


def _parse_network(url: str) -> NetworkLocation:
    """`nas://` needs the colon behind the host, as its service did; the others were written both ways."""
    scheme, _, rest = url.partition("://")
    _refuse_credentials(rest.partition("/")[0])
    found = _NETWORK.fullmatch(rest)
    if found is None or (scheme == "nas" and not found["colon"]) or (scheme != "nas" and found["windows"]):
        right = f"{scheme}://host{'' if scheme == 'cfs' else ':'}/path/"
        raise ValueError(f"must be like {right} (is {url!r})")
    _refuse_climbing(found["path"], url)
    return NetworkLocation(
        scheme=scheme, host=found["host"], path=found["path"], for_windows=bool(found["windows"])
    )


def _parse_local(url: str) -> LocalLocation:
    path = url.removeprefix(f"{LOCAL_SCHEME}://")
    _refuse_credentials(path.partition("/")[0])
    if not path.startswith("/"):
        raise ValueError(f"must be like file:///home/me/data/, without a host (is {url!r})")
    _refuse_climbing(path, url)
    return LocalLocation(path=path)


def _refuse_credentials(host: str) -> None:
    """Not even shown: whoever wrote them there did not want them read."""
    if "@" in host:
        raise ValueError(
            "must not hold credentials; store them once (windlass secret put) and name them with 'storage'"
        )


def _refuse_climbing(path: str, url: str) -> None:
    if any(part in (".", "..") for part in path.split("/")):
        raise ValueError(f"must not contain '.' or '..' as a path part (is {url!r})")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageProfile:
    """An S3 server and how to reach it."""

    endpoint: str
    """Such as `http://127.0.0.1:9000`; "" = the provider's own, by scheme and region."""
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    path_style: bool = True
    """Bucket in the path instead of the host name: right for most servers that are not a cloud's."""

    def __repr__(self) -> str:
        return f"StorageProfile(endpoint={self.endpoint!r}, region={self.region!r}, secret hidden)"

    def at_provider(self, scheme: str) -> "StorageProfile":
        """With the endpoint that the scheme's own provider has in the region, unless another is given.
        Amazon's stays "": its library knows all of them."""
        endpoint = self.endpoint or _PROVIDERS_ENDPOINTS.get(scheme, "").format(region=self.region)
        return replace(self, endpoint=endpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageProfiles:
    """Which profile serves which scheme."""

    by_scheme: Mapping[str, StorageProfile]

    def for_scheme(self, scheme: str) -> StorageProfile:
        """Raises LookupError with a sentence that says what to configure."""
        if scheme not in self.by_scheme:
            known = ", ".join(sorted(self.by_scheme)) or "none"
            raise LookupError(f"no storage profile for {scheme}:// here (configured: {known})")
        return self.by_scheme[scheme].at_provider(scheme)


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
    profiles = {
        name: profile_from_table(table, where=f"profiles.{name}.")
        for name, table in document.get("profiles", {}).items()
    }
    for scheme, name in document.get("schemes", {}).items():
        if scheme not in OBJECT_SCHEMES:
            raise ValueError(f"schemes.{scheme}: unknown scheme; known are {', '.join(OBJECT_SCHEMES)}")
        if name not in profiles:
            raise ValueError(f"schemes.{scheme}: there is no profile {name!r}")
    return StorageProfiles(
        by_scheme={scheme: profiles[name] for scheme, name in document.get("schemes", {}).items()}
    )


def profile_from_table(table: Mapping[str, Any], *, where: str) -> StorageProfile:
    """`where` the table stands, with a dot behind it. Raises ValueError that names the key that is wrong, and
    no value."""
    known = {field.name: field.type for field in fields(StorageProfile)}
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{where}{key}: unknown key; known are {', '.join(known)}")
        if not isinstance(value, bool if key == "path_style" else str):
            raise ValueError(f"{where}{key}: must be a {'boolean' if key == 'path_style' else 'text'}")
    if "endpoint" not in table:
        raise ValueError(f"{where}endpoint: is missing")
    return StorageProfile(**table)
