"""What isolated commands can and cannot do, by commands that try it in a real keeper's slot."""

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.support.isolated_slots import USERS, isolated, isolated_slot, lacking, make_owned, open_directory
from tests.support.keeper_slots import SlotUnderTest, eventually
from windlass_agent.core.run_plan import ExitRecord
from windlass_agent.isolation.machine import find_bwrap
from windlass_agent.keeper.record import owner_of
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef
from windlass_proto.model.specs import Isolation

pytestmark = pytest.mark.skipif(bool(lacking()), reason=f"not run: {lacking()}")

PROFILES = pytest.mark.parametrize("profile", [Isolation.STANDARD, Isolation.STRICT])
NOTHING = "0000000000000000"


async def said(slot: SlotUnderTest, profile: Isolation, line: str) -> str:
    """What a shell line writes; it must succeed."""
    ref, record = await told(slot, profile, line)
    assert (record.code, record.kind) == (0, None), slot.output(ref, "stderr")
    return slot.output(ref).decode()


async def told(slot: SlotUnderTest, profile: Isolation, line: str) -> tuple[AttemptRef, ExitRecord]:
    ref = slot.hand_over("/bin/sh", "-c", line, **isolated(profile))
    return ref, await slot.end_of(ref)


@PROFILES
async def test_a_command_has_a_user_of_its_own_and_no_rights(profile: Isolation) -> None:
    line = "id -u; id -g; id -G; umask; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ulimit -c"
    async with isolated_slot() as slot:
        user, group, groups, mask, *status, core = (await said(slot, profile, line)).split("\n")[:-1]
    assert USERS[0] <= int(user) < sum(USERS)
    assert (user, mask, core) == (group, "0077", "0")
    assert groups == group
    facts = dict(line.split(":\t") for line in status)
    assert {name: value for name, value in facts.items() if name.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), NOTHING
    )
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")


@PROFILES
async def test_results_are_as_exact_as_without_isolation(profile: Isolation) -> None:
    async with isolated_slot() as slot:

        async def how(*argv: str) -> tuple[int | None, int | None, FailureKind | None]:
            record = await slot.run(*argv, **isolated(profile))
            return record.code, record.signal, record.kind

        assert await how("true") == (0, None, None)
        assert await how("/bin/sh", "-c", "exit 137") == (137, None, FailureKind.USER_EXIT)
        assert await how("/bin/sh", "-c", "kill -KILL $$") == (None, 9, FailureKind.USER_SIGNAL)
        missing = await slot.run("no-such-command", **isolated(profile))
        refused = await slot.run("/etc/passwd", **isolated(profile))
    assert (missing.code, missing.reason) == (127, "no-such-command: command not found")
    assert (refused.code, refused.reason) == (126, "/etc/passwd: not executable")
    assert {missing.kind, refused.kind} == {FailureKind.USER_CONFIG}


@PROFILES
async def test_a_command_is_asked_to_end_and_may_tidy_up(profile: Isolation) -> None:
    line = "trap 'echo tidy; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    async with isolated_slot() as slot:
        ref = slot.hand_over("/bin/sh", "-c", line, **isolated(profile))
        await eventually(lambda: slot.output(ref) == b"ready\n")
        slot.slot.stop(ref)
        record = await slot.end_of(ref)
        assert (record.code, record.stopped, slot.output(ref)) == (5, True, b"ready\ntidy\n")


@PROFILES
async def test_a_command_sees_its_own_processes_alone(profile: Isolation) -> None:
    async with isolated_slot() as slot:
        pids = (await said(slot, profile, "ls /proc | grep -E '^[0-9]+$' | wc -l")).strip()
    assert 1 < int(pids) < 8


@PROFILES
async def test_temporary_directories_are_private_and_gone_afterwards(profile: Isolation) -> None:
    mark = f"windlass-mark-{os.getpid()}"
    line = (
        f'for d in /tmp /var/tmp /dev/shm; do test -z "$(ls $d | grep {mark})" && touch $d/{mark}; done; pwd'
    )
    async with isolated_slot() as slot:
        for _ in range(2):
            await said(slot, profile, f"set -e; {line}")
        left = [Path(place, mark) for place in ("/tmp", "/var/tmp", "/dev/shm")]
        assert not [path for path in left if path.exists()]


@PROFILES
async def test_calls_that_lead_to_the_node_are_refused(profile: Isolation) -> None:
    program = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(number, *arguments):
    return errno.errorcode.get(ctypes.get_errno()) if libc.syscall(number, *arguments) < 0 else "done"
calls = [(165, b"x", b"/tmp", b"tmpfs", 0, None), (272, 0x10000000), (308, 0, 0), (250, 0, 0)]
calls += [(321, 0, None, 0), (246, 0, 0, None, 0), (175, None, 0, b""), (298, None, 0, 0, 0, 0)]
calls += [(56, 0x10000000 | 17, None, None, None, 0), (0x40000000 | 39,), (425, 1, None)]
for number, *arguments in calls:
    ctypes.set_errno(0)
    print(tried(number, *arguments))
"""
    async with isolated_slot() as slot:
        ref = slot.hand_over("python3", "-c", program, **isolated(profile))
        assert (await slot.end_of(ref)).code == 0, slot.output(ref, "stderr")
        assert slot.output(ref).decode().split() == ["EPERM"] * 9 + ["ENOSYS"] * 2


async def test_attempts_that_follow_each_other_are_different_users() -> None:
    assert [owner_of(fence, (100, 4)) for fence in range(1, 6)] == [101, 102, 103, 100, 101]


async def test_strict_commands_have_no_network_and_a_system_that_cannot_be_written() -> None:
    async with isolated_slot() as slot:
        links = await said(slot, Isolation.STRICT, "cat /proc/net/dev | grep -c :")
        assert links.strip() == "1"
        for path in ("/etc", "/usr", "/var/lib", "/run"):
            _, record = await told(slot, Isolation.STRICT, f"touch {path}/windlass-mark")
            assert record.code == 1, path
        assert await said(slot, Isolation.STRICT, "echo mine > result && cat result") == "mine\n"
        first = await said(slot, Isolation.STRICT, "echo $$")
    assert int(first) < 10


async def test_what_a_strict_command_leaves_ends_with_it() -> None:
    async with isolated_slot() as slot:
        await said(slot, Isolation.STRICT, "setsid sleep 600 >/dev/null 2>&1 & echo gone")
        await eventually(lambda: not slot.others_in_group())


@PROFILES
async def test_a_commands_own_directories_and_binds_are_there(profile: Isolation) -> None:
    async with isolated_slot() as slot:
        root = slot.directory / "attempts" / "7.0.1"
        uid = USERS[0] + (1 << 40) % USERS[1]
        work, temporary, data = (make_owned(root / name, uid) for name in ("work", "tmp", "data"))
        (data / "input").write_text("given\n")
        target = Path(f"/mnt/windlass-test-{os.getpid()}")
        target.mkdir(parents=True)
        try:
            ref = slot.hand_over(
                *(
                    "/bin/sh",
                    "-c",
                    f"cat {target}/input; echo out > {target}/output; echo r > r; echo t > /tmp/t",
                ),
                work_dir=str(work),
                **isolated(profile, binds=[(str(data), str(target))], temporary=str(temporary)),
            )
            assert (await slot.end_of(ref)).code == 0, slot.output(ref, "stderr")
        finally:
            target.rmdir()
        assert slot.output(ref) == b"given\n"
        assert [path.read_text() for path in (data / "output", work / "r", temporary / "t")] == [
            *("out\n", "r\n", "t\n")
        ]


@PROFILES
async def test_a_sandbox_that_cannot_be_made_is_our_mistake_and_the_keeper_lives(profile: Isolation) -> None:
    async with isolated_slot() as slot:
        missing = isolated(profile, binds=[("/no/such/directory", "/mnt")])
        record = await slot.run("true", **missing)
        assert (record.kind, record.started) == (FailureKind.INFRA_PREPARE, False)
        assert "/no/such/directory" in record.reason
        assert (await slot.run("true", **isolated(profile))).code == 0
        assert not slot.others_in_group()


async def test_a_mount_of_the_node_that_goes_away_meanwhile_keeps_no_command_from_starting() -> None:
    """As one of another attempt may: bubblewrap goes through a list of mounts that is old by then."""
    with open_directory() as directory:
        unlucky = directory / "bwrap"
        complaint = "bwrap: Can't bind mount /oldroot/ on /newroot/: Unable to apply mount flags: gone"
        unlucky.write_text(f"""#!/bin/sh
echo x >> {directory}/tries
[ $(wc -l < {directory}/tries) -gt 3 ] && exec {find_bwrap()} "$@"
echo "{complaint}" >&2
exit 1
""")
        unlucky.chmod(0o755)
        async with isolated_slot(bwrap=str(unlucky)) as slot:
            record = await slot.run("true", **isolated(Isolation.STANDARD))
    assert record.code == 0, record.reason


async def test_open_files_are_limited_also_without_isolation() -> None:
    async with isolated_slot() as slot:
        for parts in ({}, isolated(Isolation.STANDARD)):
            ref = slot.hand_over("/bin/sh", "-c", "ulimit -n; ulimit -Hn", open_files=77, **parts)
            await slot.end_of(ref)
            assert slot.output(ref) == b"77\n77\n"
        ref = slot.hand_over("/bin/sh", "-c", "ulimit -n")
        await slot.end_of(ref)
        assert int(slot.output(ref)) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@PROFILES
async def test_processes_are_limited_for_one_command_and_not_for_the_next(profile: Isolation) -> None:
    program = """
import os, signal
children = []
try:
    while len(children) < 9:
        children.append(os.fork() or signal.pause())
except OSError as problem:
    print(problem.strerror)
print(len(children) + 1)
for child in children:
    os.kill(child, 9)
"""
    async with isolated_slot() as slot:
        limited = slot.hand_over("python3", "-c", program, pids=5, **isolated(profile))
        await slot.end_of(limited)
        free = slot.hand_over("python3", "-c", program, **isolated(profile))
        await slot.end_of(free)
        assert slot.output(limited) == b"Resource temporarily unavailable\n5\n"
        assert slot.output(free) == b"10\n"


@PROFILES
async def test_a_command_that_needs_too_much_memory_is_told_from_one_that_was_killed(
    profile: Isolation,
) -> None:
    async with isolated_slot() as slot:
        if not slot.containment.can_limit_memory:
            pytest.skip("not run: no memory cgroup here")
        greedy = await slot.run(
            "python3", "-c", "b = bytearray(200 << 20)", memory_bytes=64 << 20, **isolated(profile)
        )
    assert (greedy.kind, greedy.signal) == (FailureKind.OOM, signal.SIGKILL)
    assert greedy.peak_memory_bytes > 32 << 20
