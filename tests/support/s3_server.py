"""A real S3 server (rclone) over a directory, for tests."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

from windlass_proto.model.storage import StorageProfile, StorageProfiles

_KEY, _SECRET = "test-key", "test-secret"
_DEADLINE_S = 20.0
_REFUSED_BY_RCLONE = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    root: Path
    """Buckets are its directories."""
    endpoint: str
    secret: str = _SECRET

    def profile(self, *, secret_key: str = "") -> StorageProfile:
        return StorageProfile(endpoint=self.endpoint, access_key=_KEY, secret_key=secret_key or self.secret)

    def profiles(self) -> StorageProfiles:
        return StorageProfiles(by_scheme=dict.fromkeys(("oss", "cos", "s3"), self.profile()))

    def put(self, name: str, content: bytes | str) -> None:
        """`name` is bucket/key. When it returns the server shows it, which looks at its disk now and then."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = content.encode() if isinstance(content, str) else content
        path.write_bytes(whole)
        deadline = time.monotonic() + _DEADLINE_S
        while self._size_of(name) != len(whole):
            assert time.monotonic() < deadline, f"the server does not show {name}"
            time.sleep(0.02)

    def _size_of(self, name: str) -> int | None:
        """As the server shows it; None = it does not."""
        bucket, _, key = name.partition("/")
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=_KEY,
            aws_secret_access_key=self.secret,
        )
        try:
            return int(client.head_object(Bucket=bucket, Key=key)["ContentLength"])
        except ClientError:
            return None

    def get(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def objects(self, below: str) -> dict[str, bytes]:
        """All that lies in a directory, by name."""
        top = self.root / below
        return {
            path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()
        }

    def remove(self, name: str) -> None:
        """The server, which looks at its disk now and then, may show it a little longer."""
        (self.root / name).unlink()

    def make_bucket(self, name: str) -> None:
        (self.root / name).mkdir()

    def remove_bucket(self, name: str) -> None:
        """An empty one."""
        (self.root / name).rmdir()

    def storage_file(self, path: Path) -> Path:
        """The server as an agent's --storage file."""
        schemes = "\n".join(f'{scheme} = "test"' for scheme in ("oss", "cos", "s3"))
        path.write_text(
            f"[schemes]\n{schemes}\n[profiles.test]\n"
            f'endpoint = "{self.endpoint}"\naccess_key = "{_KEY}"\nsecret_key = "{self.secret}"\n'
        )
        return path


@contextmanager
def s3_server(root: Path, *options: str, secret: str = _SECRET) -> Iterator[S3Server]:
    """Buckets must exist as directories of `root`, or be made through the API. `options`: of rclone."""
    address = f"127.0.0.1:{free_port()}"
    env = clean_of_bundles()
    command = [
        *(str(Path(sys.executable).with_name("rclone")), "serve", "s3"),
        *("--addr", address, "--auth-key", f"{_KEY},{secret}", "--dir-cache-time", "100ms"),
        *("--config", os.devnull, *options, str(root)),
    ]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(address, server)
            yield S3Server(root=root, endpoint=f"http://{address}", secret=secret)
        finally:
            server.kill()


def clean_of_bundles() -> dict[str, str]:
    """The environment without what makes rclone refuse to start."""
    return {name: value for name, value in os.environ.items() if name not in _REFUSED_BY_RCLONE}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + _DEADLINE_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"rclone did not come up at {address}")
