"""What a command comes to, told apart by a real keeper."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.keeper_slots import PATH, a_slot
from windlass_agent.core.run_plan import ExitRecord
from windlass_proto.model.failures import FailureKind


def how(record: ExitRecord) -> tuple[int | None, int | None, FailureKind | None]:
    return record.code, record.signal, record.kind


async def test_exit_codes_and_signals_are_told_apart(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        assert how(await slot.run("true")) == (0, None, None)
        assert how(await slot.run_shell("exit 3")) == (3, None, FailureKind.USER_EXIT)
        assert how(await slot.run_shell("kill -SEGV $$")) == (None, signal.SIGSEGV, FailureKind.USER_SIGNAL)
        killed = await slot.run_shell("kill -KILL $$")
    assert how(killed) == (None, signal.SIGKILL, FailureKind.USER_SIGNAL)
    assert killed.reason == "signal SIGKILL"


async def test_a_record_tells_how_long_it_ran_and_what_it_used(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        busy = await slot.run("python3", "-c", "import time\nwhile time.process_time() < 0.2: pass")
        idle = await slot.run("sleep", "0.2")
    assert 200_000 <= busy.user_cpu_us + busy.system_cpu_us < 2_000_000
    assert idle.user_cpu_us + idle.system_cpu_us < 100_000
    assert 200_000 <= idle.ran_for_us < 2_000_000


async def test_a_command_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    files = {
        "empty": "",
        "no-rights": "#!/bin/sh\n",
        "no-interpreter": "#!/no/such/sh -e\n",
        "text": "echo hi\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644 if name == "no-rights" else 0o755)
    expected = {
        "no-such-command": (127, "no-such-command: command not found"),
        "/no/such/command": (127, "/no/such/command: command not found"),
        str(tmp_path): (126, f"{tmp_path}: not executable"),
        f"{tmp_path}/empty": (126, f"{tmp_path}/empty: is empty"),
        f"{tmp_path}/no-rights": (126, f"{tmp_path}/no-rights: not executable"),
        f"{tmp_path}/no-interpreter": (
            126,
            f"{tmp_path}/no-interpreter: bad interpreter: /no/such/sh -e is not there",
        ),
        f"{tmp_path}/text": (
            126,
            f"{tmp_path}/text: neither a program for this machine nor a script with a '#!' line",
        ),
    }
    async with a_slot(tmp_path / "state") as slot:
        found = {program: await slot.run(program, "argument") for program in expected}
    assert {program: (record.code, record.reason) for program, record in found.items()} == expected
    assert {record.kind for record in found.values()} == {FailureKind.USER_CONFIG}
    assert not any(record.started for record in found.values())


async def test_a_command_that_no_kernel_takes_is_the_users_mistake(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        empty = await slot.run()
        nul = await slot.run("echo", "a\0b")
        long = await slot.run("echo", "x" * 3_000_000)
    assert [(record.code, record.kind) for record in (empty, nul, long)] == [
        (126, FailureKind.USER_CONFIG)
    ] * 3
    assert "empty" in empty.reason
    assert "character" in nul.reason
    assert "too long" in long.reason


async def test_a_work_directory_that_is_not_there_is_our_mistake(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        record = await slot.run("true", work_dir=str(tmp_path / "missing"))
    assert (record.kind, record.started) == (FailureKind.INFRA_PREPARE, False)
    assert str(tmp_path / "missing") in record.reason


async def test_the_command_is_found_by_its_own_path_and_in_its_own_directory(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "greet").write_text("#!/bin/sh\necho from path\n")
    (tmp_path / "bin" / "greet").chmod(0o755)
    async with a_slot(tmp_path / "state") as slot:
        by_path = slot.hand_over("greet", env={"PATH": f"/no/such:{tmp_path}/bin"})
        by_directory = slot.hand_over("./greet", env={}, work_dir=str(tmp_path / "bin"))
        await slot.end_of(by_directory)
        assert slot.output(by_path) == slot.output(by_directory) == b"from path\n"


async def test_the_environment_is_exactly_the_plans(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        refs = [
            slot.hand_over("/usr/bin/env", "-0", env=env, share="task")
            for env in ({"A": "1", "B": "zwei\nZeilen"}, {"A": "2", "C": "ü"}, {})
        ]
        await slot.end_of(refs[-1])
        found = [slot.output(ref).decode() for ref in refs]
    work = f"WINDLASS_WORK_DIR={tmp_path}/slot/work\0"
    assert found == [f"A=1\0B=zwei\nZeilen\0{work}", f"A=2\0C=ü\0{work}", work]


async def test_a_command_is_told_its_work_directory(tmp_path: Path) -> None:
    line = 'test "$WINDLASS_WORK_DIR" -ef . && echo "$WINDLASS_WORK_DIR"'
    async with a_slot(tmp_path / "state") as slot:
        of_slot = slot.hand_over("/bin/sh", "-c", line)
        own = slot.hand_over("/bin/sh", "-c", line, work_dir=str(tmp_path))
        as_planned = slot.hand_over("/bin/sh", "-c", line, env=PATH | {"WINDLASS_WORK_DIR": "."})
        await slot.end_of(as_planned)
        told = [slot.output(ref).decode() for ref in (of_slot, own, as_planned)]
    assert told == [f"{tmp_path}/state/slot/work\n", f"{tmp_path}\n", ".\n"]


async def test_plans_of_many_tasks_are_not_mixed_up(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        refs = {
            slot.hand_over(
                "/bin/sh", "-c", f"echo {task} $INSTANCE", env=PATH | {"INSTANCE": f"{i}"}, share=f"{task}"
            ): (task, i)
            for i in range(2)
            for task in range(12)
        }
        for ref in refs:
            await slot.end_of(ref)
        assert {ref: slot.output(ref).decode().split() for ref in refs} == {
            ref: [str(task), str(i)] for ref, (task, i) in refs.items()
        }


async def test_a_command_gets_three_descriptors_default_signals_and_its_own_session(tmp_path: Path) -> None:
    look = (
        "import os, signal\n"
        "print(sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:-1], os.readlink('/proc/self/fd/0'),"
        " os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGHUP) == signal.SIG_DFL,"
        " signal.pthread_sigmask(signal.SIG_BLOCK, ()), oct(os.umask(0)),"
        " open('/proc/self/oom_score_adj').read().strip())\n"
    )
    # As an agent has it that a shell started in the background.
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    async with a_slot(tmp_path) as slot:
        ref = slot.hand_over("python3", "-c", look)
        ignored = slot.hand_over("grep", "SigIgn", "/proc/self/status")
        await slot.end_of(ignored)
        signal.signal(signal.SIGQUIT, before)
        assert slot.output(ref).decode() == "[0, 1, 2] /dev/null True True set() 0o22 500\n"
        assert int(slot.output(ignored).split()[1], 16) & 0x7FFFFFFF == 0


async def test_the_slots_work_directory_is_empty_for_each_command(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        first = slot.hand_over("/bin/sh", "-c", "ls -A; pwd; mkdir sub; touch file sub/file")
        second = slot.hand_over("/bin/sh", "-c", "ls -A; pwd; rmdir ../work")
        third = slot.hand_over("/bin/sh", "-c", "ls -A; pwd")
        await slot.end_of(third)
        assert {slot.output(ref).decode() for ref in (first, second, third)} == {f"{tmp_path}/slot/work\n"}
    assert list((tmp_path / "slot" / "trash").iterdir()) == []


async def test_a_prepared_work_directory_is_left_as_the_command_left_it(tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    async with a_slot(tmp_path / "state") as slot:
        await slot.run_shell("echo kept > result", work_dir=str(prepared))
    assert (prepared / "result").read_text() == "kept\n"


@pytest.mark.parametrize("used_mib", [64])
async def test_memory_is_measured_and_its_limit_told_from_another_kill(tmp_path: Path, used_mib: int) -> None:
    take: dict[str, Any] = {"argv": ("python3", "-c", f"x = bytearray({used_mib} << 20)")}
    async with a_slot(tmp_path) as slot:
        if not slot.containment.can_limit_memory:
            pytest.skip(f"NOT RUN, no memory controller here: {slot.containment.describe()}")
        fits = await slot.run(*take["argv"], memory_bytes=256 << 20)
        over = await slot.run(*take["argv"], memory_bytes=32 << 20)
        child = await slot.run_shell(
            f'python3 -c "x = bytearray({used_mib} << 20)"; exit 9', memory_bytes=32 << 20
        )
        killed = await slot.run_shell("kill -KILL $$", memory_bytes=32 << 20)
        unlimited = await slot.run(*take["argv"])
    assert how(fits) == how(unlimited) == (0, None, None)
    assert used_mib << 20 <= fits.peak_memory_bytes < 2 * used_mib << 20
    assert how(over) == (None, signal.SIGKILL, FailureKind.OOM)
    assert over.reason == f"needed more than its {32 << 20} bytes of memory; signal SIGKILL"
    assert how(child) == (9, None, FailureKind.OOM)
    assert how(killed) == (None, signal.SIGKILL, FailureKind.USER_SIGNAL)


async def test_a_keeper_stays_small_and_leaks_no_descriptor(tmp_path: Path) -> None:
    async with a_slot(tmp_path) as slot:
        await slot.run("true")
        before = len(os.listdir(f"/proc/{slot.keeper_pid()}/fd"))
        for _ in range(100):
            last = slot.hand_over("/bin/sh", "-c", "echo out; echo err >&2")
        await slot.end_of(last)
        await slot.run("no-such-command")
        await slot.run("true", timeout_s=60)
        assert len(os.listdir(f"/proc/{slot.keeper_pid()}/fd")) == before
        status = Path(f"/proc/{slot.keeper_pid()}/status").read_text()
    resident_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    assert resident_kib < 20 * 1024
