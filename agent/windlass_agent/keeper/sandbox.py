"""The namespaces of one attempt: made by bubblewrap, held open by a `cat`, entered by the command.

bubblewrap as the command's parent would tell 128 + n for a command that a signal ended, and would take the
SIGTERM that is meant for it. So it only builds: the keeper's own child joins what it has built
(`confine.py`), and exit status, signals and the reason why a program cannot be started are as exact as
without isolation. The holder ends with the keeper, whose pipe it reads, or with the command.
"""

import json
import os
import select
import signal

from windlass_agent.keeper.record import Record, boot_clock

READY_S = 20.0
"""For bubblewrap on an overloaded machine; usually it takes 3 ms."""
_INFO_FD = 3
_NAMESPACES = {"standard": ("mnt", "ipc"), "strict": ("mnt", "ipc", "uts", "net", "cgroup")}
"""What the command joins; the process namespace of `strict` is joined by the keeper for it."""
_ALSO = {
    "standard": (),
    "strict": ("--unshare-pid", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
}


_MOUNTS_CHANGED = "Unable to apply mount flags"
"""bubblewrap's words when a mount of the node went away while it went through their list."""
_TRIES = 20
_SHARED = ("/tmp", "/var/tmp")
"""Private to each attempt."""


def _way_to(target: str, made: tuple[str, ...]) -> list[str]:
    """Makes the directories above it, below one of `made`: those that bubblewrap makes are root's alone."""
    args: list[str] = []
    above = os.path.dirname(target)
    while any(above.startswith(f"{root}/") for root in made):
        args = ["--perms", "0755", "--dir", above, *args]
        above = os.path.dirname(above)
    return args


class SandboxFailed(OSError):
    """It could not be made; the text is bubblewrap's own."""


class Place:
    """The directories of one attempt; all else below the agent's state is hidden from it."""

    def __init__(self, isolation: Record, *, work: str, temporary: str, state: str) -> None:
        self.profile: str = isolation["profile"]
        self.work, self.temporary, self.state = work, temporary, state
        self.binds: list[list[str]] = isolation["binds"]

    def writable(self) -> list[str]:
        return [self.work, self.temporary, *(target for _, target in self.binds)]

    def arguments(self) -> list[str]:
        """Of bubblewrap. Sources are looked up outside, so what hides a source does not matter."""
        is_strict = self.profile == "strict"
        args = ["--ro-bind" if is_strict else "--bind", "/", "/"]
        args += ["--dev", "/dev"] if is_strict else ["--dev-bind", "/dev", "/dev"]
        if is_strict:
            for name in os.listdir("/dev"):
                if name.startswith("nvidia"):
                    args += ["--dev-bind-try", f"/dev/{name}", f"/dev/{name}"]
        if os.path.isdir("/dev/shm"):
            args += ["--perms", "1777", "--tmpfs", "/dev/shm"]
        for shared in _SHARED:
            args += ["--bind", self.temporary, shared]
        args += [*_way_to(self.state, _SHARED), "--perms", "0755", "--tmpfs", self.state]
        for directory, target in ([self.work] * 2, [self.temporary] * 2, *self.binds):
            args += [*_way_to(target, (*_SHARED, self.state)), "--bind", directory, target]
        return args


def make_sandbox(bwrap: str, place: Place) -> "Sandbox":
    """As often as mounts of the node come in between. Raises as `Sandbox`."""
    for _ in range(_TRIES):
        try:
            return Sandbox(bwrap, place)
        except SandboxFailed as problem:
            if _MOUNTS_CHANGED not in str(problem):
                raise
    return Sandbox(bwrap, place)


class Sandbox:
    """Lives from before the command's start until its main process has ended."""

    def __init__(self, bwrap: str, place: Place) -> None:
        """Raises SandboxFailed, or OSError when this machine is short of something."""
        (stdin, self._stdin), (self._said, stdout) = os.pipe(), os.pipe()
        info, info_end = os.pipe()
        argv = [bwrap, "--unshare-ipc", *_ALSO[place.profile], *place.arguments()]
        argv += ["--cap-drop", "ALL", "--chdir", "/", "--info-fd", str(_INFO_FD), "--", "/bin/cat"]
        actions = [
            (os.POSIX_SPAWN_DUP2, fd, target)
            for target, fd in ((0, stdin), (1, stdout), (2, stdout), (_INFO_FD, info_end))
        ]
        self._monitor = -1
        try:
            os.write(self._stdin, b"\n")
            try:
                self._monitor = os.posix_spawn(bwrap, argv, {}, file_actions=actions, setsid=True)
            finally:
                for fd in (stdin, stdout, info_end):
                    os.close(fd)
            self._await_ready()
            self._holder: int = json.loads(os.read(info, 4096))["child-pid"]
            self.namespaces = self._open(_NAMESPACES[place.profile])
            self.process_namespace = self._open(("pid",))[0] if place.profile == "strict" else -1
        except (OSError, ValueError, LookupError) as problem:
            self._end_monitor()
            raise problem if isinstance(problem, OSError) else SandboxFailed(None, str(problem)) from problem
        finally:
            os.close(info)

    def _await_ready(self) -> None:
        """The holder gives back the line that it was sent; anything else is bubblewrap's complaint."""
        poller, until, said = select.poll(), boot_clock() + READY_S, b""
        poller.register(self._said, select.POLLIN)
        while said != b"\n":
            if not poller.poll(max(0.0, until - boot_clock()) * 1000):
                raise SandboxFailed(None, f"bubblewrap was not ready within {READY_S:g} s")
            more = os.read(self._said, 4096)
            if not more:
                raise SandboxFailed(None, said.decode(errors="replace").strip()[:300] or "bubblewrap failed")
            said += more

    def _open(self, names: tuple[str, ...]) -> list[int]:
        return [os.open(f"/proc/{self._holder}/ns/{name}", os.O_RDONLY) for name in names]

    def close_namespaces(self) -> None:
        """The command has joined them."""
        for fd in self.namespaces:
            os.close(fd)
        self.namespaces = []

    def close(self) -> None:
        """The main process has ended; in a process namespace the kernel ends what it left."""
        self.close_namespaces()
        if self.process_namespace >= 0:
            os.close(self.process_namespace)
            self.process_namespace = -1
        try:
            os.kill(self._holder, signal.SIGKILL)  # Our grandchild: reaped by bubblewrap, which we reap next.
        except ProcessLookupError:
            pass
        self._end_monitor()

    def _end_monitor(self) -> None:
        for fd in (self._stdin, self._said):
            os.close(fd)
        if self._monitor > 0:
            try:
                os.kill(self._monitor, signal.SIGKILL)
                os.waitpid(self._monitor, 0)
            except (ProcessLookupError, ChildProcessError):
                pass  # It was ended with all else.
        self._monitor = -1
