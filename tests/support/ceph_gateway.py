"""A Ceph of one monitor, one manager and one store in a file, with its S3 gateway: heavy, and real."""

import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.s3_server import free_port
from windlass_proto.model.storage import StorageProfile

_ACCESS, _SECRET = "test-access", "test-secret"
_DEADLINE_S = 180.0
_PROGRAMS = (
    "ceph",
    "ceph-mon",
    "ceph-osd",
    "ceph-mgr",
    "ceph-authtool",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)
_CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}


def why_no_ceph() -> str:
    """What is missing; "" = nothing."""
    if os.geteuid() != 0:
        return "needs root, for a Ceph of its own"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_CLEAN["PATH"]) is None]
    return f"needs {', '.join(missing)} (packages radosgw, ceph-mon, ceph-osd, ceph-mgr)" if missing else ""


@contextmanager
def ceph_gateway(directory: Path) -> Iterator[StorageProfile]:
    """How its gateway is reached; there is no bucket yet."""
    cluster = _Cluster(directory)
    try:
        cluster.start()
        yield StorageProfile(
            endpoint=f"http://127.0.0.1:{cluster.port}", access_key=_ACCESS, secret_key=_SECRET
        )
    finally:
        cluster.end()


class _Cluster:
    def __init__(self, directory: Path) -> None:
        self._home, self._id, self.port, self._monitor = (
            directory,
            str(uuid.uuid4()),
            free_port(),
            free_port(),
        )
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for name in ("mon", "mgr", "osd", "rgw", "log", "run"):
            (self._home / name).mkdir()
        (self._home / "ceph.conf").write_text(
            _SETTINGS.format(home=self._home, id=self._id, port=self.port, monitor=self._monitor)
        )
        self._make_keys()
        monitors = str(self._home / "monmap")
        address = f"[v2:127.0.0.1:{self._monitor}]"
        self._tool(
            "monmaptool",
            "--create",
            "--addv",
            "a",
            address,
            "--fsid",
            self._id,
            "--set-min-mon-release",
            "pacific",
            monitors,
        )
        self._tool(
            "ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", str(self._home / "keyring")
        )
        self._daemon("ceph-mon", "-i", "a")
        self._until("the monitor", "-s")
        self._tool("ceph", "osd", "new", str(uuid.uuid4()))
        store = json.loads(self._tool("ceph", "osd", "dump", "-f", "json"))["osds"][0]["uuid"]
        self._tool("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store)
        self._daemon("ceph-osd", "-i", "0")
        self._daemon("ceph-mgr", "-i", "x")
        self._until("the store", "osd", "stat", shows="1 up")
        self._daemon("radosgw", "-n", "client.rgw")
        self._tool(
            *("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=t", "--display-name=t"),
            *(f"--access-key={_ACCESS}", f"--secret={_SECRET}"),
        )
        self._until_it_listens()

    def end(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()

    def _make_keys(self) -> None:
        everything = [part for of in ("mon", "osd", "mgr", "mds") for part in ("--cap", of, "allow *")]
        for number, name in enumerate(("mon.", "client.admin", "osd.0", "mgr.x", "client.rgw")):
            create = ["--create-keyring"] if number == 0 else []
            rights = everything[:3] if name == "mon." else everything
            self._run("ceph-authtool", str(self._home / "keyring"), *create, "--gen-key", "-n", name, *rights)

    def _tool(self, program: str, *arguments: str) -> str:
        config = () if program == "monmaptool" else ("-c", str(self._home / "ceph.conf"))
        return self._run(program, *config, *arguments)

    def _run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, capture_output=True, env=_CLEAN, cwd=self._home, check=False, timeout=_DEADLINE_S
        )
        assert done.returncode == 0, (argv, done.stderr.decode()[-1000:])
        return done.stdout.decode()

    def _daemon(self, program: str, *arguments: str) -> None:
        with (self._home / "log" / f"{program}.out").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    [program, "-c", str(self._home / "ceph.conf"), *arguments, "-f"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_CLEAN,
                    cwd=self._home,
                )
            )

    def _until(self, what: str, *question: str, shows: str = "") -> None:
        argv = ["ceph", "-c", str(self._home / "ceph.conf"), "--connect-timeout", "5", *question]
        give_up_at = time.monotonic() + _DEADLINE_S
        while True:
            done = subprocess.run(
                argv, capture_output=True, env=_CLEAN, cwd=self._home, check=False, timeout=60
            )
            if done.returncode == 0 and shows in done.stdout.decode():
                return
            assert time.monotonic() < give_up_at, f"{what} did not come up"
            time.sleep(0.2)

    def _until_it_listens(self) -> None:
        give_up_at = time.monotonic() + _DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < give_up_at, "the gateway did not come up"
                time.sleep(0.1)
            else:
                return


_SETTINGS = """\
[global]
keyring = {home}/keyring
fsid = {id}
mon host = v2:127.0.0.1:{monitor}
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 2
log file = {home}/log/$name.log
admin socket = {home}/run/$name.asok
pid file =
run dir = {home}/run
setuser match path =
[mon.a]
mon data = {home}/mon
[osd.0]
osd data = {home}/osd
osd journal = {home}/osd/journal
osd memory target = 939524096
bluestore block size = 2147483648
bluestore block create = true
osd objectstore = bluestore
[mgr.x]
mgr data = {home}/mgr
mgr modules =
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 64
rgw data = {home}/rgw
keyring = {home}/keyring
rgw enable usage log = false
"""
"""Needs its logins: without them the gateway hangs."""
