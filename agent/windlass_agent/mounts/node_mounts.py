"""Mounts the inputs of attempts on this node, and takes them off whatever has become of them.

Object inputs share one rclone per attempt; over each lies an overlay with the attempt's own scratch
(decision 0011). Network and local directories are bound to their places. Everything is written down as it
comes into being (`mounted`), and what can hang is only ever touched by a child (`order`).
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import structlog

from windlass_agent.core.mount_plan import InputMount
from windlass_agent.mounts.base import (
    BadMapping,
    MountRequest,
    StorageOpener,
    StorageUnavailable,
    Survey,
)
from windlass_agent.mounts.fuse_daemon import Remote, end_daemon, start_daemon, wait_for_mount
from windlass_agent.mounts.kernel import KnownProcess, abort_connection, is_waited_for, mount_entries
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.mounts.mounted import (
    FOLDER,
    Mounted,
    forget_mounted,
    read_mounted,
    read_verdict,
    write_mounted,
    write_verdict,
)
from windlass_agent.mounts.names import MOST_NAMES, make_names
from windlass_agent.mounts.network_mount import NetworkMounts
from windlass_agent.mounts.order import BindMount, Overlay, Proof, expose, probe
from windlass_agent.mounts.scratch import directories_of, is_fit, make_scratch
from windlass_agent.spool.stray_mounts import detach_below
from windlass_proto.model.storage import LocalLocation, NetworkLocation, ObjectLocation

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class MountLimits:
    """What the node sets."""

    start_s: float = 60.0
    """For a mount to be there and proved."""
    probe_s: float = 15.0
    """For a daemon to answer; then it counts as hanging."""
    cache_bytes: int = 16 << 30
    """Of one attempt, for what was read."""
    survey_most: int = 10_000
    """Objects of an input that are looked at first: files can be made in the directories seen by then."""


@dataclass(slots=True, kw_only=True)
class _Plan:
    """What is to be mounted, as it is found out."""

    remotes: list[Remote] = field(default_factory=list)
    known_names: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Of each remote, something that has to be there."""
    overlays: list[Overlay] = field(default_factory=list)
    binds: list[BindMount] = field(default_factory=list)


class NodeMounts:
    """Implements InputMounter; needs root, FUSE, overlay and rclone."""

    def __init__(
        self,
        limits: MountLimits,
        *,
        rclone: str,
        boot_id: str,
        network: NetworkMounts,
        local: LocalDirectories,
    ) -> None:
        self._limits, self._rclone, self._boot_id = limits, rclone, boot_id
        self._network, self._local = network, local

    def mount(self, request: MountRequest, storages: StorageOpener, *, cancelled: Event) -> None:
        self.release(request.root)
        folder = request.root / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(mode=0o700)
            self._mount(request, storages, cancelled)
        except OSError as problem:
            self.release(request.root)
            raise StorageUnavailable(f"the inputs cannot be mounted on this node: {problem}") from problem
        except BaseException:
            self.release(request.root)
            raise

    def verdict(self, root: Path) -> str:
        known = read_verdict(root)
        if known is not None:
            return known
        mounted = read_mounted(root)
        trouble = "" if mounted is None else self._trouble(mounted)
        if mounted is not None:
            with suppress(OSError):  # a full disk: then it is asked once more
                write_verdict(root, trouble)
        if trouble:
            log.warning("mounts.died", directory=str(root), reason=trouble)
        return trouble

    def look_after(self, root: Path) -> None:
        mounted = read_mounted(root)
        if mounted is None or read_verdict(root) is not None:
            return
        lives = mounted.daemon is None or mounted.daemon.lives
        if lives and not any(map(is_waited_for, mounted.points.values())):
            return
        trouble = self._trouble(mounted)
        if trouble:
            log.warning("mounts.died", directory=str(root), reason=trouble)
            with suppress(OSError):
                write_verdict(root, trouble)

    def release(self, root: Path) -> None:
        if not (root / FOLDER).exists():
            return
        mounted = read_mounted(root)
        detach_below(root)
        daemon = None if mounted is None or mounted.boot_id != self._boot_id else mounted.daemon
        if mounted is not None and daemon is not None and not end_daemon(daemon):
            for device in mounted.points.values():
                abort_connection(device)
            end_daemon(daemon)
        forget_mounted(root)

    # Below: one step of the above each

    def _mount(self, request: MountRequest, storages: StorageOpener, cancelled: Event) -> None:
        plan = _Plan()
        points: dict[str, str] = {}
        daemon: KnownProcess | None = None
        for number, one in enumerate(request.inputs):
            match one.location:
                case ObjectLocation() as location:
                    self._plan_object(plan, number, one, location, request, storages, cancelled)
                case NetworkLocation() as location:
                    point = request.root / FOLDER / "net" / str(number)
                    points[str(point)] = self._network.mount(
                        location, one.mapping, point, locks=request.locks, cancelled=cancelled
                    )
                    write_mounted(request.root, Mounted(boot_id=self._boot_id, daemon=None, points=points))
                    _bind(plan, str(point), one, request, writable=one.mapping.writable)
                case LocalLocation() as location:
                    _bind(plan, str(self._local.directory(location)), one, request, writable=False)
        proofs = [Proof(path=point, device=device) for point, device in points.items()]
        if plan.remotes:
            daemon = self._start(request.root, plan, points)
            proofs += self._wait(request.root, daemon, plan, points, cancelled)
        expose(proofs, plan.overlays, plan.binds, within_s=self._limits.start_s, cancelled=cancelled)
        log.info(
            "inputs.mounted",
            directory=str(request.root),
            inputs=len(request.inputs),
            pid=daemon.pid if daemon else None,
        )

    def _plan_object(
        self,
        plan: _Plan,
        number: int,
        one: InputMount,
        location: ObjectLocation,
        request: MountRequest,
        storages: StorageOpener,
        cancelled: Event,
    ) -> None:
        storage = storages.for_scheme(location.scheme, storage=one.mapping.storage)
        survey = storage.survey(location, most=MOST_NAMES if request.codec else self._limits.survey_most)
        if survey.is_object:
            # There is no directory to mount, and an object next to it is none of the task's business.
            storage.fetch_directory(location, one.directory, cancelled=cancelled)
            return
        remote = Remote(profile=storage.profile, location=location)
        if remote not in plan.remotes:
            plan.remotes.append(remote)
        at = plan.remotes.index(remote)
        plan.known_names[at] = _one_known(survey)
        self._note(one, survey)
        folder = request.root / FOLDER
        scratch = folder / "scratch" / str(number)
        names = ""
        if request.codec:
            names = str(_names(scratch, one, survey, request.codec))
        make_scratch(scratch, [] if names else directories_of(survey.objects))
        plan.overlays.append(
            Overlay(
                lower=str(folder / "fuse" / str(at)),
                upper=str(scratch / "upper"),
                work=str(scratch / "work"),
                names=names,
                root=str(request.root),
                target=one.directory.relative_to(request.root).as_posix(),
            )
        )

    def _start(self, root: Path, plan: _Plan, points: dict[str, str]) -> KnownProcess:
        folder = root / FOLDER
        (folder / "fuse").mkdir()
        daemon = start_daemon(self._rclone, folder, plan.remotes, cache_bytes=self._limits.cache_bytes)
        write_mounted(root, Mounted(boot_id=self._boot_id, daemon=daemon, points=points))
        return daemon

    def _wait(
        self,
        root: Path,
        daemon: KnownProcess,
        plan: _Plan,
        points: dict[str, str],
        cancelled: Event,
    ) -> list[Proof]:
        folder = root / FOLDER
        entry = wait_for_mount(daemon, folder, within_s=self._limits.start_s, cancelled=cancelled)
        points[str(folder / "fuse")] = entry.device
        write_mounted(root, Mounted(boot_id=self._boot_id, daemon=daemon, points=points))
        return [
            Proof(path=str(folder / "fuse" / str(at)), device=entry.device, names=plan.known_names[at])
            for at in range(len(plan.remotes))
        ]

    def _note(self, one: InputMount, survey: Survey) -> None:
        """What the command cannot do here that it could do with a small directory."""
        unfit = sum(not is_fit(seen.name) for seen in survey.objects)
        if unfit:
            log.warning("input.names_unfit", input=str(one.location), objects=unfit)
        if not survey.is_whole:
            log.info("input.large", input=str(one.location), looked_at=len(survey.objects))

    def _trouble(self, mounted: Mounted) -> str:
        if mounted.boot_id != self._boot_id:
            return "the machine was restarted"
        if mounted.daemon is not None and not mounted.daemon.lives:
            return "rclone, which served the inputs, ended while the command ran"
        there = {entry.point: entry.device for entry in mount_entries()}
        for point, device in mounted.points.items():
            if there.get(point) != device:
                return "the mount of the inputs was taken off while the command ran"
        silent = probe([Path(point) for point in mounted.points], within_s=self._limits.probe_s)
        if silent:
            for device in mounted.points.values():
                abort_connection(device)
            return f"the mount of the inputs cannot be used any more: {silent}"
        return ""


def _bind(plan: _Plan, source: str, one: InputMount, request: MountRequest, *, writable: bool) -> None:
    target = one.directory.relative_to(request.root).as_posix()
    plan.binds.append(BindMount(source=source, root=str(request.root), target=target, writable=writable))


def _names(scratch: Path, one: InputMount, survey: Survey, codec: str) -> Path:
    if not survey.is_whole:
        raise BadMapping(
            f"{one.what}: has more than {MOST_NAMES} objects, too many for names in {codec};"
            " map smaller directories, or leave input_locale out"
        )
    scratch.mkdir(parents=True)
    make_names(scratch / "names", survey.objects, codec)
    return scratch / "names"


def _one_known(survey: Survey) -> tuple[str, ...]:
    """Only of a small directory: the mount lists a whole one to find a single name."""
    if not survey.is_whole:
        return ()
    return tuple(seen.name for seen in survey.objects if is_fit(seen.name))[:1]
