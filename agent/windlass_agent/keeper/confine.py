"""What a command may not do: its child's side between fork and exec, and the system calls that it is refused.

Plain system calls by ctypes: nothing of the C library's own state is touched, and the keeper has one thread.
"""

import ctypes
import json
import os
import resource
import struct
from collections.abc import Callable

from windlass_agent.keeper.record import Record
from windlass_agent.keeper.sandbox import Place, Sandbox
from windlass_agent.keeper.seccomp import filter_program

_libc = ctypes.CDLL(None, use_errno=True)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_CLONE_NEWUSER, _CLONE_NEWPID = 0x10000000, 0x20000000
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_READ = 0b1101
"""Execute, read files, list directories."""
_LANDLOCK_ALL_V1 = (1 << 13) - 1
_LANDLOCK_NEWER = {2: 1 << 13, 3: 1 << 14}
"""Rights that came with a version: renaming across directories, truncating."""
_CLOSE_RANGE, _CLOSE_RANGE_CLOEXEC = 436, 4
_CAPABILITY_VERSION_3 = 0x20080522


class Confinement:
    """Under what a command runs; `sandbox` None = the agent's own user and namespaces."""

    def __init__(
        self, place: Place | None, sandbox: Sandbox | None, *, uid: int, open_files: int, processes: int
    ) -> None:
        self.place, self.sandbox, self.uid = place, sandbox, uid
        self.open_files, self.processes = open_files, processes

    def enter(self) -> None:
        """In the child: from the keeper's rights to the command's."""
        if self.sandbox:
            for fd in self.sandbox.namespaces:
                _call("setns", fd, 0)
            _show_own_processes_only()
        self._limit()
        if self.sandbox and self.place:
            is_strict = self.place.profile == "strict"
            _drop_bounding_set()
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
            if is_strict:
                _enter_user_namespace(self.uid)
                _drop_bounding_set()
            _drop_capabilities()
            _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            if is_strict:
                _landlock(self.place.writable())
            _refuse_calls(self.place.profile)
            os.umask(0o077)

    def _limit(self) -> None:
        if self.sandbox:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self.open_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.open_files, self.open_files))
        if self.processes:
            resource.setrlimit(resource.RLIMIT_NPROC, (self.processes, self.processes))


def hand_over(directory: str, uid: int) -> None:
    """To the attempt's user, by descriptor: a name could mean something else by now."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(fd, uid, uid)
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def join_process_namespace(sandbox: Sandbox) -> int:
    """For the keeper's next children; to be given to `leave_process_namespace` after the fork."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    _call("setns", sandbox.process_namespace, _CLONE_NEWPID)
    return own


def leave_process_namespace(own: int) -> None:
    _call("setns", own, _CLONE_NEWPID)
    os.close(own)


def _become_likelier_victim(oom_score_adj: bytes) -> None:
    """Of the kernel when memory runs out; later the file is not ours any more."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(fd, oom_score_adj)
    except OSError:
        pass  # The machine does not allow it.
    finally:
        os.close(fd)


def _call(name: str, *args: object) -> int:
    result: int = getattr(_libc, name)(*args)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _show_own_processes_only() -> None:
    _call("mount", b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, b"hidepid=2")


def _drop_bounding_set() -> None:
    number = 0
    while _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
        number += 1


def _drop_capabilities() -> None:
    header, nothing = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    _call("capset", header, nothing)


def _enter_user_namespace(uid: int) -> None:
    """Outside it the command has no rights whatever becomes of it inside; its ids stay what they are."""
    _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self is root's
    _call("unshare", _CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"{uid} {uid} 1"),
        ("uid_map", f"{uid} {uid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, text.encode())
        os.close(fd)


def landlock_version() -> int:
    """0 = this kernel has none."""
    version: int = _libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    return max(0, version)


def _landlock(writable: list[str]) -> None:
    version = landlock_version()
    if not version:
        return
    handled = _LANDLOCK_ALL_V1 | sum(bits for since, bits in _LANDLOCK_NEWER.items() if version >= since)
    attributes = struct.pack("Q", handled)
    rules = _call("syscall", _LANDLOCK_CREATE, attributes, len(attributes), 0)
    allowed = dict.fromkeys((*writable, "/tmp", "/var/tmp", "/dev", "/proc/self"), handled)
    for path, rights in ({"/": _LANDLOCK_READ} | allowed).items():
        try:
            fd = os.open(path, os.O_PATH)
        except FileNotFoundError:
            continue
        _call("syscall", _LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, fd), 0)
        os.close(fd)
    _call("syscall", _LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def _refuse_calls(profile: str) -> None:
    program = filter_program(os.uname().machine, profile)
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0)


def spawn_confined(
    confinement: Confinement, become: Callable[[], Record], oom_score_adj: bytes
) -> tuple[int, Record | None]:
    """Pid of a child that is confined and becomes the command, and None; or why it could not.

    `become` returns only when it failed. The child's fork costs what vfork spares, but only so can it be
    confined before a byte of the command runs.
    """
    said, end = os.pipe()
    sandbox = confinement.sandbox
    own = join_process_namespace(sandbox) if sandbox and sandbox.process_namespace >= 0 else -1
    pid = -1
    try:
        pid = os.fork()
        if pid == 0:
            _be_the_command(confinement, become, oom_score_adj, end)
    finally:
        os.close(end)
        if own >= 0:
            leave_process_namespace(own)
        if pid < 0:
            os.close(said)
    with open(said, "rb") as file:
        text = file.read()
    if sandbox:
        sandbox.close_namespaces()
    if not text:
        return pid, None
    os.waitpid(pid, 0)
    return -1, json.loads(text)


def _be_the_command(
    confinement: Confinement, become: Callable[[], Record], oom_score_adj: bytes, end: int
) -> None:
    """Never returns: nothing of the keeper may go on in the child."""
    try:
        try:
            _libc.syscall(_CLOSE_RANGE, 3, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)
            _become_likelier_victim(oom_score_adj)
            confinement.enter()
            failed = become()
        except (OSError, ValueError) as problem:
            failed = {"at": "isolation", "program": f"isolation: {problem}", "errno": None}
        os.write(end, json.dumps(failed).encode())
    finally:
        os._exit(1)
