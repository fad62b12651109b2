"""What is promised of mounted objects beyond being seen: who may change what, and the end of a daemon."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.mounts.conftest import Attempt, a_mounter
from windlass_agent.mounts import InputWay
from windlass_agent.mounts.kernel import identity_of
from windlass_agent.mounts.mounted import FOLDER

_AN_ORDINARY_USER = 65534
_DEADLINE_S = 60.0


def as_user(attempt: Attempt, script: str) -> "subprocess.CompletedProcess[str]":
    """A shell line of somebody who is not root, in the input's directory."""
    user = f"--reuid={_AN_ORDINARY_USER} --regid={_AN_ORDINARY_USER} --clear-groups".split()
    return subprocess.run(
        ["setpriv", *user, "--", "/bin/sh", "-c", script],
        cwd=attempt.work / "in",
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )


ATTACKS = (
    "echo more >> a.txt",
    ": > a.txt",
    "truncate -s 0 'sub dir/b.txt'",
    "rm -f a.txt",
    "rm -rf 'sub dir'",
    "mv a.txt b.txt",
    "mv 'sub dir' elsewhere",
    "echo mine > new && mv -f new a.txt",
    "chmod u+w a.txt",
    "ln -sf /etc/passwd a.txt",
    "touch -d yesterday a.txt",
)


def test_an_ordinary_user_cannot_change_what_is_in_the_store(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    went_through = [attack for attack in ATTACKS if as_user(mounted, attack).returncode == 0]
    assert went_through == []
    shown = mounted.tree("in")
    shown.pop("new", None)
    assert shown == {"a.txt": b"alpha", "sub dir/b.txt": b"beta", "sub dir/deep/c.txt": b"gamma"}


def test_an_ordinary_user_can_make_use_and_remove_files_of_his_own_everywhere(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    said = as_user(
        mounted,
        "set -e; echo 1 > new; echo 2 >> new; mv new 'sub dir/deep/mine'; mkdir -p d/e; cp a.txt d/e/copy;"
        " rm 'sub dir/deep/mine'; cat d/e/copy; rm -r d; test -x a.txt",
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "alpha", "")


def test_programs_run_from_a_mount(mounted: Attempt) -> None:
    mounted.mount(("s3://other/tools/", "in"))
    assert as_user(mounted, "./run.sh").stdout == "ran\n"


def test_what_was_made_is_private_and_gone_with_the_mount(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    assert as_user(mounted, "echo mine > new").returncode == 0
    mounted.mounter.release(mounted.root)
    assert list((mounted.work / "in").iterdir()) == []
    mounted.mount(("oss://data/small/", "in"))
    assert "new" not in mounted.tree("in")


def test_root_changes_its_own_view_and_never_the_store(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    (mounted.work / "in/a.txt").chmod(0o755)
    (mounted.work / "in/a.txt").write_text("mine")
    (mounted.work / "in/sub dir/b.txt").unlink()
    assert mounted.s3.get("data/small/a.txt") == b"alpha"
    assert mounted.s3.get("data/small/sub dir/b.txt") == b"beta"


def test_all_inputs_of_an_attempt_have_one_daemon_and_two_attempts_have_two(
    mounted: Attempt, tmp_path: Path
) -> None:
    mounted.mount(("oss://data/small/", "one"), ("oss://data/small/", "two"), ("s3://other/tools/", "three"))
    assert len(_rclones(mounted.root)) == 1
    another = replace(mounted, root=tmp_path / "another")
    another.work.mkdir(parents=True)
    try:
        another.mount(("oss://data/small/", "one"))
        assert another.daemon_pid() != mounted.daemon_pid()
    finally:
        another.mounter.release(another.root)


def test_credentials_are_on_no_command_line_in_no_environment_and_in_no_file(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    secret = mounted.s3.profile().secret_key.encode()
    process = Path(f"/proc/{mounted.daemon_pid()}")
    assert secret not in (process / "cmdline").read_bytes()
    assert secret not in (process / "environ").read_bytes()
    peek = as_user(mounted, f"cat /proc/{mounted.daemon_pid()}/environ")
    assert "Permission denied" in peek.stderr
    for path in (mounted.root / FOLDER).rglob("*"):
        if path.is_file() and not path.is_relative_to(mounted.root / FOLDER / "fuse"):
            assert secret not in path.read_bytes()
    assert (mounted.root / FOLDER).stat().st_mode & 0o077 == 0


def test_the_agents_environment_does_not_reach_rclone(
    mounted: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLONE_READ_ONLY", "false")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
    mounted.mount(("oss://data/small/", "in"))
    environ = Path(f"/proc/{mounted.daemon_pid()}/environ").read_bytes()
    assert b"RCLONE_READ_ONLY" not in environ
    assert b"AWS_CA_BUNDLE" not in environ


def test_a_directory_of_the_node_is_read_only_for_root_too(mounted: Attempt, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    mounted.mounter = a_mounter(InputWay.MOUNT, local=(here,))
    mounted.mount((f"file://{here}", "in"))
    with pytest.raises(OSError, match="Read-only"):
        (mounted.work / "in/new").touch()


def test_a_daemon_that_dies_spoils_the_attempt_and_is_cleared_away(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    os.kill(mounted.daemon_pid(), signal.SIGKILL)
    verdict = mounted.mounter.verdict(mounted.root)
    assert verdict != ""
    mounted.mounter.release(mounted.root)
    assert mounted.mounts() == []
    assert mounted.mounter.verdict(mounted.root) == verdict


def test_a_daemon_that_hangs_spoils_the_attempt_and_blocks_nobody(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    pid = mounted.daemon_pid()
    identity = identity_of(pid)
    assert identity is not None
    mounted.mounter = a_mounter(InputWay.MOUNT, probe_s=2.0)
    os.kill(pid, signal.SIGSTOP)
    assert "does not answer" in mounted.mounter.verdict(mounted.root)
    mounted.mounter.release(mounted.root)
    assert not identity.lives
    assert mounted.mounts() == []


def test_a_mount_that_was_taken_off_spoils_the_attempt(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    subprocess.run(["umount", "-l", str(mounted.root / FOLDER / "fuse")], check=True)
    assert mounted.mounter.verdict(mounted.root) != ""


def test_the_next_agent_finds_mounts_and_daemon_as_they_were(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    pid = mounted.daemon_pid()
    next_one = a_mounter(InputWay.MOUNT)
    assert next_one.verdict(mounted.root) == ""
    assert (mounted.work / "in/a.txt").read_text() == "alpha"
    next_one.release(mounted.root)
    assert mounted.mounts() == []
    assert _is_gone(pid)


def test_mounts_without_a_record_are_found_in_the_kernels_list(mounted: Attempt) -> None:
    mounted.mount(("oss://data/small/", "in"))
    pid = mounted.daemon_pid()
    (mounted.root / FOLDER / "mounted.json").unlink()
    mounted.mount(("oss://data/small/", "in"))
    assert (mounted.work / "in/a.txt").read_text() == "alpha"
    assert len(mounted.mounts()) == 2
    assert _is_gone(pid)


def test_of_a_huge_directory_only_the_beginning_is_looked_at(mounted: Attempt) -> None:
    for number in range(30):
        mounted.s3.put(f"data/wide/d{number:02}/f", str(number))
    mounted.mounter = a_mounter(InputWay.MOUNT, survey_most=10)
    mounted.mount(("oss://data/wide/", "in"))
    assert len(mounted.tree("in")) == 30
    assert as_user(mounted, "echo 1 > new; echo 1 > d05/new").returncode == 0
    assert "denied" in as_user(mounted, "echo 1 > d25/new").stderr
    assert as_user(mounted, "rm -f d25/f").returncode != 0


def _rclones(root: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"rclone" in argv and os.fsencode(root) in argv:
                found.append(entry.name)
    return found


def _is_gone(pid: int) -> bool:
    """A daemon whose last mount goes ends by itself."""
    until_s = time.monotonic() + _DEADLINE_S
    while (identity := identity_of(pid)) is not None and identity.lives and time.monotonic() < until_s:
        time.sleep(0.05)
    return identity is None or not identity.lives
