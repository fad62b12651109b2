"""One command from its start until nothing of it is left."""

import errno
import os
import resource  # noqa: F401  (os.wait4 would load it at the first end of a command)
import signal
from collections.abc import Mapping

from windlass_agent.keeper.cgroup import Group
from windlass_agent.keeper.confine import Confinement, spawn_confined
from windlass_agent.keeper.output import Stream
from windlass_agent.keeper.record import NEVER, Record, boot_clock

LOOK_S = 5.0
"""A running command is looked at: orphans are reaped, and the boot clock may have jumped ahead."""
GRACE_LOOK_S = 0.02
"""While the rest of an ending command's processes have their grace."""
KILL_LOOK_S = (0.001, 0.1)
"""While killed processes vanish: first and longest pause."""
STUCK_S = 5.0
"""The agent is called for help when killed processes are still there."""
UNDO_S = 60.0
"""For ending what outlives a command's processes, such as its container; then it is left to the agent."""
PROGRAM_CHARS = 500
"""Of a program's name in a record, whose room in the journal is bounded."""
_RESTORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT)


def find_program(program: str, environment: Mapping[str, str]) -> str:
    """As a shell would with the command's own PATH. Raises FileNotFoundError or PermissionError."""
    if "/" in program or not program:
        return program
    refused = False
    for directory in environment.get("PATH", os.defpath).split(":"):
        path = os.path.join(directory or ".", program)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            refused = True
    raise (PermissionError if refused else FileNotFoundError)(errno.EACCES if refused else errno.ENOENT, "")


def describe_failed_start(program: str, error: OSError | ValueError) -> Record:
    """Facts that tell a missing command from a missing interpreter; the working directory still holds.

    A ValueError means something that no program can be given, such as a NUL.
    """
    first = b""
    try:
        with open(program, "rb") as file:
            first = file.readline(200)
    except OSError:
        pass
    return {
        "program": program[:PROGRAM_CHARS],
        "errno": getattr(error, "errno", None),
        "exists": os.path.exists(program),
        "empty": not first,
        "interpreter": first[2:].decode(errors="replace").strip() if first[:2] == b"#!" else "",
    }


class LeaseEnd:
    """How long the node may keep what it runs, as the agent told it last (protocol.md, section 6)."""

    def __init__(self, until: float = NEVER, grace_s: float = NEVER) -> None:
        self.until = until
        """Of the boot clock; for ever, when no agent has said anything."""
        self.grace_s = grace_s

    def outlived_at(self, plan: Record) -> float:
        """When the command of the plan is to be ended; an older agent's plans do not say."""
        outlive_s = plan.get("outlive_s")
        return NEVER if outlive_s is None else self.until + outlive_s

    def forbids_start(self, plan: Record) -> bool:
        """The coordinator may have given to another node what it has not heard of as begun.

        What was prepared for long is known to it, and is treated as if it ran.
        """
        now = boot_clock()
        return now >= self.until and (plan["work_dir"] is None or now >= self.outlived_at(plan))


class Command:
    """Runs (until its main process ends) and settles (until nothing of it is left)."""

    def __init__(
        self, plan: Record, streams: tuple[Stream, Stream], *, drain_s: float, lease: LeaseEnd
    ) -> None:
        self.plan = plan
        self.ref: list[int] = plan["ref"]
        self.streams = streams
        self.pid = self.pidfd = -1
        self.status: int | None = None
        self.ran_for = self.user_cpu = self.system_cpu = 0.0
        self.cause = ""
        """`timeout`, `disconnect` or `stop` when the keeper ends it; what came first stays."""
        self.leftover: set[int] = set()
        """Killed after it had ended by itself."""
        self.killing_since = NEVER
        self.look_at = 0.0
        self._drain_s = drain_s
        self._began_at = boot_clock()
        timeout_s = plan["timeout_s"]
        self._deadline = NEVER if timeout_s is None else self._began_at + timeout_s
        self.renew(lease)
        self._confinement: Confinement | None = None
        self._wait_until = 0.0
        """End of the grace, or of the drain when it ended by itself."""
        self._pause_s = KILL_LOOK_S[0]
        self._undo_begun = False

    def spawn(self, null: int, pipes: tuple[int, int], environment: Mapping[str, str]) -> None:
        """By vfork inside posix_spawn, 5 % cheaper than Popen; the working directory is set already."""
        argv = self.plan["argv"] or [""]
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate((null, *pipes))]
        self.pid = os.posix_spawn(
            find_program(argv[0], environment),
            argv,
            environment,
            file_actions=actions,
            setsid=True,
            setsigdef=_RESTORED_SIGNALS,
            setsigmask=(),
        )
        self.pidfd = os.pidfd_open(self.pid)

    def spawn_in(
        self,
        confinement: Confinement,
        null: int,
        pipes: tuple[int, int],
        environment: Mapping[str, str],
        *,
        work_dir: str,
        oom_score_adj: bytes,
    ) -> Record | None:
        """By fork, with limits or a sandbox of its own; None = it runs, otherwise why it does not."""
        argv = self.plan["argv"] or [""]

        def become() -> Record:
            os.setsid()
            for number in _RESTORED_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            for target, fd in enumerate((null, *pipes)):
                os.dup2(fd, target)
            try:
                os.chdir(work_dir)
            except OSError as error:
                return describe_failed_start(work_dir, error) | {"at": "work_dir"}
            try:
                os.execve(find_program(argv[0], environment), argv, environment)
            except (OSError, ValueError) as error:
                return describe_failed_start(argv[0], error) | {"at": "command"}

        self._confinement = confinement
        failed: Record | None = {}
        try:
            self.pid, failed = spawn_confined(confinement, become, oom_score_adj)
        finally:
            if failed is not None and confinement.sandbox:
                confinement.sandbox.close()
        if failed is None:
            self.pidfd = os.pidfd_open(self.pid)
        return failed

    def renew(self, lease: LeaseEnd) -> None:
        """The node may keep the command until then, and a while longer if its plan says so."""
        self._lease = lease
        self._due_at = min(self._deadline, lease.outlived_at(self.plan))

    def terminate(self, cause: str, grace_s: float = NEVER) -> None:
        """With the plan's grace, or this one if it is shorter.

        SIGCONT after SIGTERM: a stopped process sees the latter only when it goes on.
        """
        if self.cause or self.status is not None:
            return
        self.cause = cause
        self._wait_until = boot_clock() + min(self.plan["kill_grace_s"], grace_s)
        for number in (signal.SIGTERM, signal.SIGCONT):
            os.killpg(self.pid, number)

    def settle(self, group: Group) -> bool:
        """Does what is due; True when the command and all that it started are gone."""
        now = boot_clock()
        has_children = self._reap(now)
        if self.status is None:
            if now >= self._due_at and not self.cause:
                self._end_overdue(now)
            if not self.cause or now < self._wait_until:
                self.look_at = min(self._wait_until if self.cause else self._due_at, now + LOOK_S)
                return False
        elif not has_children and not group.others():
            # Nobody is left who could write; whoever escaped has until the end of the drain.
            self.look_at = self._wait_until
            return self._is_ending or now >= self._wait_until or all(s.pipe < 0 for s in self.streams)
        elif now < self._wait_until and (self._is_ending or any(s.pipe >= 0 for s in self.streams)):
            self.look_at = min(self._wait_until, now + (GRACE_LOOK_S if self._is_ending else LOOK_S))
            return False
        self._kill(now, group)
        return False

    def undo(self, null: int, group: Group) -> bool:
        """Starts what ends that which outlives the processes, such as a container; whether it did.

        Once, when they are gone, and only if a signal ended the command: else it has seen to that itself.
        """
        argv = self.plan.get("undo")
        if not argv or self._undo_begun or self.status is None or not os.WIFSIGNALED(self.status):
            return False
        self._undo_begun = True
        if self.killing_since != NEVER:
            group.allow_forks()
            self.killing_since = NEVER
        actions = [(os.POSIX_SPAWN_DUP2, null, target) for target in range(3)]
        try:
            os.posix_spawn(argv[0], argv, {}, file_actions=actions, setsid=True, setsigmask=())
        except OSError:
            return False  # The agent does it, when it hears of the end.
        now = boot_clock()
        self._wait_until, self.look_at = now + UNDO_S, now + GRACE_LOOK_S
        return True

    @property
    def _is_ending(self) -> bool:
        return bool(self.cause) or self._undo_begun

    def _end_overdue(self, now: float) -> None:
        if now >= self._deadline:
            self.terminate("timeout")
        else:
            self.terminate("disconnect", self._lease.grace_s)

    def _kill(self, now: float, group: Group) -> None:
        if self.killing_since == NEVER:
            self.killing_since = now
            if self.status is None:
                # First, so that a shell dies of this signal and not of a fork that is forbidden.
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            group.forbid_forks()
        has_ended = self.status is not None
        killed = group.kill_all()
        if has_ended and not self.cause:
            self.leftover |= killed
        self.look_at = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, KILL_LOOK_S[1])

    def _reap(self, now: float) -> bool:
        """Collects what has ended; whether there are children still. Orphans become the keeper's children."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.user_cpu += usage.ru_utime
            self.system_cpu += usage.ru_stime
            if pid == self.pid:
                self.status, self.ran_for = status, now - self._began_at
                if self._confinement and self._confinement.sandbox:
                    self._confinement.sandbox.close()
                if not self.cause:
                    self._wait_until = now + self._drain_s
