"""Attempts whose commands have ended and whose outputs are published: with the coordinator's own verbs, over
a real S3 server."""

import asyncio
import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.builders import Machine, a_job, a_task, exits
from tests.support.coordinator import InMemoryCoordinator
from tests.support.gateway_store import GatewayStore
from tests.support.s3_server import S3Server
from windlass_agent.core.mount_plan import plan_mounts
from windlass_agent.core.output_gate import Grant, LeaseOver, Wish
from windlass_agent.mounts import Storages
from windlass_agent.mounts.copied_inputs import CopiedInputs
from windlass_agent.mounts.local_directory import LocalDirectories
from windlass_agent.runner.steps.base import AttemptFolders, StepContext, StepSettings
from windlass_agent.runner.steps.outputs import store_results
from windlass_agent.spool.attempt_dir import OutputSpool
from windlass_proto import failpoints
from windlass_proto.model.events import Started
from windlass_proto.model.ids import AttemptRef, JobId, TaskName
from windlass_proto.model.specs import Argv, OutputMapping, TaskSpec
from windlass_proto.model.states import LogStream

LATER = timedelta(hours=1)


class AgentKilled(BaseException):
    """The agent ends here, as far as the attempt can tell."""


class OutputWorld:
    """A coordinator with one instance, and the directories of its attempts."""

    def __init__(
        self, coordinator: InMemoryCoordinator, s3: S3Server | GatewayStore, directory: Path
    ) -> None:
        self.coordinator, self.s3, self.directory = coordinator, s3, directory
        self.bucket = f"b{hashlib.sha256(str(directory).encode()).hexdigest()[:16]}"
        s3.make_bucket(self.bucket)
        self.job_id = coordinator.submit(a_job(a_task(max_retries=3)))
        self.url = f"oss://{self.bucket}/results/"

    def attempt(self, *, failed: bool = False) -> "OutputAttempt":
        """The next one of the instance; its command has ended."""
        node = self.coordinator.node()
        self.coordinator.later(timedelta(hours=1))
        self.coordinator.ready_due()
        ref = self.coordinator.claim_one(node)
        self.coordinator.report(node, ref, Started(), *(() if failed else (exits(finalizing=True),)))
        return OutputAttempt(self, node, ref)

    def lose(self, attempt: "OutputAttempt") -> None:
        self.coordinator.mark_silent(attempt.node)
        self.coordinator.replace(attempt.node)
        self.coordinator.open_session(attempt.node)

    def published(self, below: str = "results") -> dict[str, bytes]:
        return self.s3.objects(f"{self.bucket}/{below}")

    @property
    def recorded(self) -> tuple[int, str]:
        ((attempt, digest),) = self.coordinator.rows("SELECT attempt, manifest_digest FROM published")
        return int(attempt), str(digest)

    def manifest(self) -> bytes:
        (data,) = self.published("results.windlass-manifests").values()
        return data


class OutputAttempt:
    """One attempt, and what it asks the coordinator; implements `OutputGate`."""

    def __init__(self, world: OutputWorld, node: Machine, ref: AttemptRef) -> None:
        self.world, self.node, self.ref = world, node, ref
        self.folders = AttemptFolders(root=world.directory / str(ref.attempt))
        self.checks_left = 1_000_000
        """Requests until the lease is over."""

    def writes(self, **files: bytes | str) -> "OutputAttempt":
        for name, content in files.items():
            path = self.folders.work / "out" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self

    async def held(self) -> None:
        return

    def check(self) -> None:
        self.checks_left -= 1
        if self.checks_left < 0:
            raise LeaseOver("the lease is over")

    async def commit(self, wish: Wish) -> Grant:
        commit = self.world.coordinator.commit_outputs(
            self.node, wish.ref, digest=wish.manifest_digest, of_failed_command=wish.of_failed_command
        )
        verdict = commit.verdict
        return Grant(granted=verdict.granted, reason=verdict.reason, supersedes=commit.supersedes)

    def context(self, **spec: object) -> StepContext:
        """As a newly started agent makes it."""
        fields: dict[str, object] = {
            "outputs": (OutputMapping(source="out", destination=self.world.url),)
        } | spec
        task = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)), **fields)  # type: ignore[arg-type]  # by name
        root = self.folders
        return StepContext(
            ref=self.ref,
            job_id=JobId("job"),
            spec=task,
            folders=root,
            storages=Storages(self.world.s3.profiles(), threads=4),
            mounter=CopiedInputs("there are none", local=LocalDirectories([])),
            gate=self,
            settings=StepSettings(
                package_limit_bytes=1,
                package_limit_entries=1,
                package_limit_ratio=1,
                package_timeout=LATER,
                mount_timeout=LATER,
                upload_timeout=LATER,
            ),
            mounts=plan_mounts(
                task, work=root.work, mounts=root.mounts, own=self.world.directory, may_bind=False
            ),
        )

    def spools(self) -> dict[LogStream, OutputSpool]:
        return {stream: OutputSpool(self.folders.root, stream) for stream in LogStream}

    async def finalizes(self, *, failed: bool = False, **spec: object) -> StepContext:
        """All goes well, or the assertion says why not."""
        context, failure = await self.tries(failed=failed, **spec)
        assert failure == "", failure
        return context

    async def tries(self, *, failed: bool = False, **spec: object) -> tuple[StepContext, str]:
        context = self.context(**spec)
        context.has_failed = failed
        self.folders.work.mkdir(parents=True, exist_ok=True)
        async with asyncio.timeout(60):
            failure = await store_results(context, self.spools(), with_directories=True)
        return context, failure.reason if failure else ""

    async def is_killed_at(self, name: str, nth: int = 1) -> None:
        left = nth

        def hook(reached: str) -> None:
            nonlocal left
            left -= reached == name
            if reached == name and left == 0:
                raise AgentKilled

        failpoints.install(hook)
        try:
            with pytest.raises(AgentKilled):
                await self.finalizes()
        finally:
            failpoints.install(None)
