"""The keeper's loop: the agent's messages, the command's pipes and end, the clock."""

import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial

from windlass_agent.keeper.cgroup import Group, Memory
from windlass_agent.keeper.command import STUCK_S, Command, LeaseEnd
from windlass_agent.keeper.journal import Journal
from windlass_agent.keeper.launch import Launcher
from windlass_agent.keeper.link import Link
from windlass_agent.keeper.output import ROOM_RETRY_S, SlotRoom, Spool, Stream
from windlass_agent.keeper.record import NEVER, PROTOCOL, Record, boot_clock, encode, reach
from windlass_agent.keeper.work_place import WorkPlace

MAX_QUEUED = 4096
"""Plans; an agent that hands over more has lost count and is cut off."""
HOME_LOOK_S = 5.0
"""How soon a keeper that runs something notices that its slot's directory was removed."""
HOLD_S = 0.005
"""A record waits this long for the next one while commands follow each other: fewer wake-ups of the agent."""
_UNWRITTEN = {what: f"keeper.{what}.before_write" for what in ("intent", "start", "exit")}
_WRITTEN = {what: f"keeper.{what}.after_write" for what in ("intent", "start", "exit")}
_PLAN_FIELDS = frozenset(
    ("argv", "env", "work_dir", "output_dir", "timeout_s", "kill_grace_s", "memory_bytes")
)


class Keeper:
    """Config: slot, build, groups {procs, memory, pids, cpu}, state, uids, bwrap, cpu_limits, journal_bytes,
    segment_bytes, spool_limit_bytes, spool_slot_bytes, pids_max, drain_s, idle_exit_s, oom_score_adj,
    crash_at.
    """

    def __init__(self, config: Record, nonce: str) -> None:
        self._config = config
        self._nonce = nonce
        self._slot: str = config["slot"]
        self._work_place = WorkPlace(self._slot)
        self._group = Group(config["groups"], config["pids_max"])
        groups = config["groups"]
        self._memory = Memory(groups["memory"]) if "memory" in groups else None
        with open("/proc/sys/kernel/random/boot_id") as file:
            header = {"is": "segment", "boot": file.read().strip(), "pid": os.getpid()}
        about = os.stat(self._slot)
        header["slot"] = [about.st_dev, about.st_ino]  # A copy of the journal tells of another's processes.
        self._home = os.open(self._slot, os.O_RDONLY | os.O_DIRECTORY)
        self._journal = Journal(self._slot, config["journal_bytes"], header)
        self._null = os.open(os.devnull, os.O_RDWR)
        self._launcher = Launcher(config, self._work_place, self._group, self._memory, self._null)
        self._queue: deque[Record] = deque()
        self._templates: dict[int, Record] = {}
        self._command: Command | None = None
        self._lease = LeaseEnd()
        self._agent: Link | None = None
        self._is_ending = False
        self._flush_at = self._exit_at = self._room_at = NEVER
        self._home_at = 0.0
        self._room = SlotRoom(config["spool_limit_bytes"], config["spool_slot_bytes"])
        self._patient: list[Stream] = []
        """Their command waits until there is room for its output."""
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._poller = select.poll()
        self._work_place.empty()

    def serve(self, listener: socket.socket) -> None:
        self._watch(listener.fileno(), lambda _: self.admit(listener.accept()[0], is_trusted=False))
        while self._command or self._queue or not self._is_ending:
            for fd, events in self._poller.poll(self._pause_ms()):
                if fd in self._handlers:
                    self._handlers[fd](events)
            if boot_clock() >= self._room_at:
                self._look_for_room()
            self._advance()
            if boot_clock() >= self._flush_at:
                self._flush()
        self._flush()

    def _pause_ms(self) -> int | None:
        """Rounded up, so that what is due is due when poll returns."""
        until = min(
            self._flush_at, self._exit_at, self._room_at, self._command.look_at if self._command else NEVER
        )
        return None if until == NEVER else max(0, int((until - boot_clock()) * 1000) + 1)

    def _watch(self, fd: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._poller.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        del self._handlers[fd]
        self._poller.unregister(fd)

    # What the agent says.

    def admit(self, sock: socket.socket, *, is_trusted: bool) -> None:
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (os.getuid(), 0):
            sock.close()
            return
        link = Link(sock, is_trusted=is_trusted)
        self._watch(sock.fileno(), lambda events: self._on_link(link, events))

    def _on_link(self, link: Link, events: int) -> None:
        try:
            if events & ~select.POLLOUT:
                for message in link.receive():
                    self._obey(link, message)
            if events & select.POLLOUT:
                self._flush()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            self._part(link)

    def _part(self, link: Link) -> None:
        """Commands go on; what they come to stands in the journal."""
        if link.sock.fileno() >= 0:
            self._unwatch(link.sock.fileno())
            link.sock.close()
        if link is self._agent:
            self._agent, self._flush_at = None, NEVER

    def _obey(self, link: Link, message: Record) -> None:
        verb = message.pop("is")
        if verb == "hello":
            self._greet(link, message)
        elif link is not self._agent:
            raise PermissionError
        elif verb == "template":
            self._templates[message.pop("id")] = message
        elif verb == "run":
            self._enqueue(message)
        elif verb == "stop":
            self._stop(message["ref"], message.get("grace", NEVER))
        elif verb == "lease":
            self._lease = LeaseEnd(message["until"], message["grace"])
            if self._command:
                self._command.renew(self._lease)
        elif verb == "spool":
            self._room.attempt_bytes, self._room.slot_bytes = message["attempt"], message["slot"]
        elif verb == "shutdown":
            self._is_ending = True
            for ref in self._held() if message["kill"] else ():
                self._stop(ref)

    def _greet(self, link: Link, message: Record) -> None:
        if not link.is_trusted and message["nonce"] != self._nonce:
            raise PermissionError
        if self._agent and self._agent is not link:
            self._part(self._agent)
        self._agent, self._templates = link, {}
        running = self._command.ref if self._command else None
        self._tell(
            {
                "is": "keeper",
                "pid": os.getpid(),
                "build": self._config["build"],
                "protocol": PROTOCOL,
                "grace": self._command.plan["kill_grace_s"] if self._command else 0,
                "running": running,
                "queued": [plan["ref"] for plan in self._queue],
            }
        )

    def _enqueue(self, message: Record) -> None:
        base = self._templates[message["template"]] if "template" in message else message
        if len(self._queue) >= MAX_QUEUED or not base.keys() >= _PLAN_FIELDS:
            raise ValueError
        self._queue.append({**base, **message, "base_env": base["env"]})

    def _held(self) -> list[list[int]]:
        return [plan["ref"] for plan in self._queue] + ([self._command.ref] if self._command else [])

    def _stop(self, ref: list[int], grace_s: float = NEVER) -> None:
        """A command that waits never starts; one that has ended keeps its result."""
        if self._command and self._command.ref == ref:
            self._command.terminate("stop", grace_s)
        for plan in [plan for plan in self._queue if plan["ref"] == ref]:
            self._queue.remove(plan)
            self._pass_over(plan, "stop")

    def _pass_over(self, plan: Record, cause: str) -> None:
        """It does not start. When that cannot be written down nothing is lost: nothing was begun."""
        record = {"is": "exit", "ref": plan["ref"], "cause": cause}
        try:
            self._record(record, reserve=True)
        except OSError:
            self._tell(record | {"segment": self._journal.number})

    # What the agent hears.

    def _record(self, record: Record, *, hold_s: float = 0.0, reserve: bool = False) -> None:
        """Journal first, then the agent."""
        if reserve:
            self._journal.reserve()
        record["segment"] = self._journal.number
        line = encode(record).encode() + b"\n"
        reach(_UNWRITTEN[record["is"]])
        self._journal.append(line)
        reach(_WRITTEN[record["is"]])
        if record["is"] != "intent":
            self._send(line, hold_s)

    def _tell(self, record: Record) -> None:
        self._send(encode(record).encode() + b"\n", 0.0)

    def _send(self, line: bytes, hold_s: float) -> None:
        if self._agent:
            self._agent.unsent.append(line)
            self._flush_at = min(self._flush_at, boot_clock() + hold_s)

    def _flush(self) -> None:
        self._flush_at = NEVER
        link = self._agent
        if link and link.unsent:
            try:
                link.send()
            except OSError:
                self._part(link)
                return
            self._poller.register(link.sock.fileno(), select.POLLIN | (select.POLLOUT if link.unsent else 0))

    # What the command does.

    def _advance(self) -> None:
        while self._command or self._queue:
            if self._command is None:
                self._begin(self._queue.popleft())
            elif self._command.settle(self._group):
                if not self._command.undo(self._null, self._group):
                    self._finish(self._command)
            else:
                break
        if self._command:
            self._watch_over(self._command, boot_clock())
        if self._agent or self._command:
            self._exit_at = NEVER
        elif self._exit_at == NEVER:
            self._exit_at = boot_clock() + self._config["idle_exit_s"]
        elif boot_clock() >= self._exit_at:
            self._is_ending = True

    def _watch_over(self, command: Command, now: float) -> None:
        if now > command.killing_since + STUCK_S:
            command.killing_since = now
            self._tell({"is": "stuck", "ref": command.ref})
        if now >= self._home_at:
            self._home_at = now + HOME_LOOK_S
            if not self._has_home():
                self._is_ending = True
                for ref in self._held():
                    self._stop(ref)

    def _has_home(self) -> bool:
        """Whose directory is gone will never be asked again: nothing may go on unseen for ever."""
        return os.fstat(self._home).st_nlink > 0

    def _begin(self, plan: Record) -> None:
        if self._lease.forbids_start(plan):
            self._pass_over(plan, "disconnect")
            return
        try:
            self._record({"is": "intent", "ref": plan["ref"]}, reserve=True)
        except OSError as error:
            self._fail(plan, {"at": "journal", "program": "the keeper's journal", "errno": error.errno})
            return
        (out, child_out), (err, child_err) = os.pipe(), os.pipe()
        on_full = plan.get("on_full_spool", "drop")
        spool = Spool(plan["output_dir"], self._config["segment_bytes"], self._room, on_full)
        streams = Stream("stdout", out, spool, self._null), Stream("stderr", err, spool, self._null)
        command = Command(plan, streams, drain_s=self._config["drain_s"], lease=self._lease)
        failed = self._launcher.launch(command, (child_out, child_err))
        os.close(child_out)
        os.close(child_err)
        if failed:
            os.close(out)
            os.close(err)
            self._fail(plan, failed)
            return
        self._command = command
        for stream in streams:
            self._watch(stream.pipe, partial(self._on_output, stream))
        self._watch(command.pidfd, lambda _: self._close_pidfd(command))
        start = {
            "is": "start",
            "ref": command.ref,
            "pid": command.pid,
            "ticks": self._launcher.introduce(command.pid),
        }
        self._record(start, hold_s=HOLD_S)

    def _fail(self, plan: Record, failed: Record) -> None:
        record = {"is": "exit", "ref": plan["ref"], "failed": failed}
        if failed["at"] == "journal":  # Nothing was started, so nothing is lost when this is not written.
            self._tell(record | {"segment": self._journal.number})
        else:
            self._record(record, hold_s=self._hold_s())

    def _on_output(self, stream: Stream, events: int) -> None:
        if not events & select.POLLIN:
            self._unwatch(stream.pipe)
            stream.close()
        elif not stream.pump():
            self._unwatch(stream.pipe)
            self._patient.append(stream)
            self._room_at = boot_clock() + ROOM_RETRY_S

    def _look_for_room(self) -> None:
        streams, self._patient, self._room_at = self._patient, [], NEVER
        for stream in streams:
            self._watch(stream.pipe, partial(self._on_output, stream))

    def _close_pidfd(self, command: Command) -> None:
        command.streams[0].spool.relent()
        self._look_for_room()
        self._unwatch(command.pidfd)
        os.close(command.pidfd)
        command.pidfd = -1

    def _finish(self, command: Command) -> None:
        self._look_for_room()
        for stream in command.streams:
            if stream.pipe >= 0:
                self._unwatch(stream.pipe)
                stream.drain()
                stream.close()
        if command.pidfd >= 0:
            self._close_pidfd(command)
        if command.killing_since != NEVER:
            self._group.allow_forks()
        self._command = None
        if not self._agent:  # Who else would count what lies here until it comes back?
            self._room.slot_bytes -= command.streams[0].spool.stored
        self._record(self._exit_record(command), hold_s=self._hold_s())
        try:
            if command.plan["work_dir"] is None:
                self._work_place.empty()
            else:
                os.chdir(self._slot)  # So that a directory of the attempt can be unmounted.
        except FileNotFoundError:
            self._is_ending = True  # The slot was removed: the next plan would have no place.

    def _hold_s(self) -> float:
        return HOLD_S if self._queue else 0.0

    def _exit_record(self, command: Command) -> Record:
        """What is nought is left out."""
        memory = self._memory
        facts = {
            "cause": command.cause,
            "oom": memory.oom_killed() if memory else False,
            "peak": memory.peak() if memory else 0,
            "out": command.streams[0].end,
            "err": command.streams[1].end,
            "left": len(command.leftover),
            "timeout_s": command.plan["timeout_s"] if command.cause == "timeout" else None,
            "memory_bytes": command.plan["memory_bytes"],
        }
        times = [int(seconds * 1e6) for seconds in (command.ran_for, command.user_cpu, command.system_cpu)]
        record = {"is": "exit", "ref": command.ref, "status": command.status, "us": times}
        return record | {name: fact for name, fact in facts.items() if fact}
