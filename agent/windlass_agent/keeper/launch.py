"""Starts a command as its plan says: where, within which limits, behind which walls."""

import os

from windlass_agent.keeper.cgroup import Cpu, Group, Memory
from windlass_agent.keeper.command import Command, describe_failed_start
from windlass_agent.keeper.confine import Confinement, hand_over
from windlass_agent.keeper.record import Record, owner_of, reach
from windlass_agent.keeper.sandbox import Place, make_sandbox
from windlass_agent.keeper.work_place import WorkPlace


class Launcher:
    """Of one slot. Config: see `loop.Keeper`."""

    def __init__(
        self, config: Record, work_place: WorkPlace, group: Group, memory: Memory | None, null: int
    ) -> None:
        groups = config["groups"]
        self._work_place, self._group, self._memory, self._null = work_place, group, memory, null
        self._cpu = Cpu(groups["cpu"], config["cpu_limits"]) if "cpu" in groups else None
        self._uids, self._state, self._bwrap = config["uids"], config["state"], config["bwrap"]
        self._oom_score_adj = str(config["oom_score_adj"]).encode()

    def launch(self, command: Command, pipes: tuple[int, int]) -> Record | None:
        """None = it runs; otherwise why it does not."""
        plan = command.plan
        environment: dict[str, str] = {**plan["base_env"], **plan["env"]}
        for name in plan.get("unset", ()):
            del environment[name]
        at, program = "work_dir", plan["work_dir"] or self._work_place.work
        environment.setdefault("WINDLASS_WORK_DIR", program)
        try:
            os.chdir(program)
            at, program = "limits", "a limit"
            self._limit(plan)
            is_plain = not plan.get("isolation") and not plan.get("open_files")
            at, program = (
                ("command", next(iter(plan["argv"]), "")) if is_plain else ("isolation", "isolation")
            )
            if not is_plain:
                confinement = self._confine(plan)
            reach("keeper.start.before_exec")
            if is_plain:
                command.spawn(self._null, pipes, environment)
                return None
            return command.spawn_in(
                confinement,
                self._null,
                pipes,
                environment,
                work_dir=plan["work_dir"] or self._work_place.work,
                oom_score_adj=self._oom_score_adj,
            )
        except (OSError, ValueError) as error:
            if at == "isolation":
                program = f"isolation: {error}"
            return describe_failed_start(program, error) | {"at": at}

    def _limit(self, plan: Record) -> None:
        isolation = plan.get("isolation")
        self._group.limit_pids(plan.get("pids", 0), isolation["profile"] if isolation else "")
        if self._memory:
            self._memory.prepare(plan["memory_bytes"])
        if self._cpu:
            self._cpu.prepare(plan.get("cpu", 0.0))

    def _confine(self, plan: Record) -> Confinement:
        """Raises OSError."""
        isolation, open_files = plan.get("isolation"), plan.get("open_files", 0)
        if not isolation:
            return Confinement(None, None, uid=os.getuid(), open_files=open_files, processes=0)
        uid = owner_of(plan["ref"][3], self._uids)
        for own in () if plan["work_dir"] else (self._work_place.work, self._work_place.temporary):
            os.makedirs(own, 0o700, exist_ok=True)
            hand_over(own, uid)
        place = Place(
            isolation,
            work=plan["work_dir"] or self._work_place.work,
            temporary=isolation.get("tmp") or self._work_place.temporary,
            state=self._state,
        )
        # Without a group of its own the user is what can be counted.
        processes = 0 if self._group.limits_pids else plan.get("pids", 0)
        sandbox = make_sandbox(self._bwrap, place)
        return Confinement(place, sandbox, uid=uid, open_files=open_files, processes=processes)

    def introduce(self, pid: int) -> int:
        """Makes the command a likelier victim than its keeper when memory runs out; its start ticks."""
        try:
            fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
            try:
                os.write(fd, self._oom_score_adj)
            finally:
                os.close(fd)
        except OSError:
            pass  # It has ended already, or the machine does not allow it.
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            return int(os.read(fd, 4096).rpartition(b")")[2].split()[19])
        finally:
            os.close(fd)
