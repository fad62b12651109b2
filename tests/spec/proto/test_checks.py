"""Every problem of a job is found at once, each named by its path, with what would be right."""

from dataclasses import replace
from datetime import timedelta
from time import process_time
from typing import Any

import pytest

from windlass_proto.checks import SpecLimits, check_job, nearest
from windlass_proto.model.ids import ClusterName, TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import (
    Argv,
    InputMapping,
    JobSpec,
    OutputMapping,
    ShellLine,
    TaskSpec,
)


def a_task(name: str = "count", after: tuple[str, ...] = (), **fields: Any) -> TaskSpec:
    fields.setdefault("command", Argv(args=("python3", "count.py")))
    return TaskSpec(name=TaskName(name), after=tuple(TaskName(parent) for parent in after), **fields)


def a_job(*tasks: TaskSpec, **fields: Any) -> JobSpec:
    return JobSpec(**({"name": "log-count", "tasks": tasks} | fields))


def problems_of(*tasks: TaskSpec, **fields: Any) -> list[str]:
    return [str(problem) for problem in check_job(a_job(*tasks, **fields))]


def test_a_job_that_uses_everything_rightly_has_no_problem() -> None:
    task = a_task(
        "count.words-2",
        ("split",),
        command=ShellLine(line="sort < in | uniq -c"),
        instances=10_000_000,
        package="oss://bucket/some dir/program.tar.gz",
        env={"LD_PRELOAD": "/opt/x.so", "_A1": "", "BATCH_COMPUTE_DOCKER_IMAGE": "ubuntu"},
        timeout=timedelta(days=365),
        max_retries=1000,
        resources=Resources(cpu=0.5, memory_bytes=1 << 30, slots=2),
        cluster=ClusterName("gpu"),
        stdout="oss://bucket/logs/",
        stderr="cos://bucket",
        inputs=(
            InputMapping(source="oss://bucket/in/", destination="input/"),
            InputMapping(source="oss://bucket/in/", destination="/home/input"),
        ),
        outputs=(
            OutputMapping(source="output", destination="s3://bucket/out/"),
            OutputMapping(source="/mnt/output", destination="s3://bucket/out/"),
        ),
    )
    assert problems_of(a_task("split"), task, priority=-1_000_000, description="Zählt Wörter") == []


def test_all_problems_come_at_once_each_with_its_path() -> None:
    bad = a_task(
        instances=0, timeout=timedelta(0), max_retries=-1, resources=Resources(slots=0), after=("splitt",)
    )
    assert problems_of(a_task("split"), bad, name="", priority=1_000_001) == [
        "name: must be given",
        "priority: must be <= 1000000 (is 1000001)",
        "tasks.count.instances: must be >= 1 (is 0)",
        "tasks.count.retries: must be >= 0 (is -1)",
        "tasks.count.timeout: must be >= 1 s (is 0 s)",
        "tasks.count.resources.slots: must be >= 1 (is 0)",
        "tasks.count.after: there is no task 'splitt'; did you mean split?",
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "a\nb"}, r"name: must hold printable characters only (is 'a\nb')"),
        ({"name": "\ud800"}, r"name: must hold printable characters only (is '\ud800')"),
        ({"name": "x" * 61}, "name: must be at most 60 characters long (is 61)"),
        ({"description": "a\0"}, "description: must not contain a NUL character (is at position 1)"),
        ({"description": "ü" * 2049}, "description: must be at most 4096 bytes long (is 4098)"),
        ({"tasks": ()}, "tasks: must hold at least one task"),
        ({"tasks": (a_task(),) * 10_001}, "tasks: must be at most 10000 (are 10001)"),
        (
            {"tasks": tuple(a_task(f"t{i}", after=("t0",) * 60_000) for i in (1, 2))},
            "tasks: must have at most 100000 dependencies in all (have 120000)",
        ),
    ],
)
def test_a_wrong_head_of_a_job_is_named(fields: dict[str, Any], problem: str) -> None:
    assert problems_of(**({"tasks": (a_task(),)} | fields)) == [problem]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"instances": 10_000_001}, "instances: must be <= 10000000 (is 10000001)"),
        ({"command": Argv(args=())}, "command: must be given: a program with its arguments, or a shell line"),
        ({"command": Argv(args=("", "x"))}, "command[0]: must name a program (is empty)"),
        (
            {"command": Argv(args=("echo", "a\0b"))},
            "command[1]: must not contain a NUL character (is at position 1)",
        ),
        (
            {"command": Argv(args=("echo", "\udc80"))},
            "command[1]: must not contain half of a surrogate pair (is at position 0)",
        ),
        (
            {"command": Argv(args=("x" * 60_000, "x" * 60_000))},
            "command: must be at most 100000 bytes long in all (is 120000)",
        ),
        (
            {"command": Argv(args=("x",) * 10_001)},
            "command: must have at most 10000 arguments (has 10001)",
        ),
        ({"command": ShellLine(line=" ")}, "shell: must not be empty"),
        ({"command": ShellLine(line="a\0")}, "shell: must not contain a NUL character (is at position 1)"),
        ({"timeout": timedelta(milliseconds=999)}, "timeout: must be >= 1 s (is 0.999 s)"),
        ({"timeout": timedelta(days=366)}, "timeout: must be <= 365 days (is 366 days, 0:00:00)"),
        ({"timeout": timedelta.max}, "timeout: must be <= 365 days (is 999999999 days, 23:59:59.999999)"),
        ({"timeout": timedelta(days=365, seconds=1)}, "timeout: must be <= 365 days (is 365 days, 0:00:01)"),
        ({"max_retries": 1001}, "retries: must be <= 1000 (is 1001)"),
        ({"resources": Resources(cpu=-0.5)}, "resources.cpu: must be >= 0 (is -0.5)"),
        ({"resources": Resources(cpu=float("nan"))}, "resources.cpu: must be a number (is nan)"),
        ({"resources": Resources(cpu=float("inf"))}, "resources.cpu: must be a number (is inf)"),
        ({"resources": Resources(memory_bytes=-1)}, "resources.memory: must be >= 0 (is -1)"),
        ({"resources": Resources(gpus=-1)}, "resources.gpus: must be >= 0 (is -1)"),
        ({"resources": Resources(gpus=1025)}, "resources.gpus: must be <= 1024 (is 1025)"),
        (
            {"cluster": ClusterName("a/b")},
            "cluster: must begin with a letter or digit and go on with letters, digits, '.', '_' and '-' "
            "(is 'a/b')",
        ),
        (
            {"env": {"2X": "x"}},
            "env: '2X' must be a letter or '_', followed by letters, digits and '_' only",
        ),
        (
            {"env": {"A\n": "x"}},
            r"env: 'A\n' must be a letter or '_', followed by letters, digits and '_' only",
        ),
        ({"env": {"WINDLASS_X": "x"}}, "env.WINDLASS_X: must not begin with WINDLASS_, which is ours"),
        ({"env": {"X": "a\0"}}, "env.X: must not contain a NUL character (is at position 1)"),
        ({"env": {"X": "x" * 100_000}}, "env: must be at most 100000 bytes long in all (is 100001)"),
        (
            {"env": {f"X{i}": "" for i in range(1001)}},
            "env: must have at most 1000 entries (has 1001)",
        ),
        (
            {"package": "oss://bucket/program.rar"},
            "package: must be an archive: .tar.gz, .tgz, .tar.bz2, .tbz2, .tar.xz, .txz, .tar.zst, "
            ".tzst, .tar, .zip (is 'oss://bucket/program.rar')",
        ),
        (
            {"package": "/tmp/program.zip"},
            "package: must be an object URL such as oss://bucket/path/ (is '/tmp/program.zip')",
        ),
        (
            {"stdout": "http://x/"},
            "stdout: must be an object URL such as oss://bucket/path/ (is 'http://x/')",
        ),
        (
            {"stderr": "oss://b/../x"},
            "stderr: must not contain '.' or '..' as a path part (is 'oss://b/../x')",
        ),
        ({"stderr": "oss://b/\n"}, r"stderr: must hold printable characters only (is 'oss://b/\n')"),
        (
            {"inputs": (InputMapping(source="oss:///x/", destination="in"),)},
            "inputs[0].source: names no bucket; must be like oss://bucket/path/ (is 'oss:///x/')",
        ),
        (
            {"input_locale": "utf-16"},
            "input_locale: must be a character set that Python knows and that keeps ASCII as it is, such as"
            " GBK, BIG5 or Shift_JIS (is 'utf-16')",
        ),
        (
            {
                "input_locale": "GBK",
                "inputs": (InputMapping(source="nfs://nas:/data", destination="in"),),
            },
            "input_locale: must not be given with inputs[0], whose names are as its server has them"
            " ('nfs://nas:/data'); only names of oss://, cos:// and s3:// can be had in another one",
        ),
        (
            {"outputs": (OutputMapping(source="out", destination="x"),)},
            "outputs[0].destination: must be an object URL such as oss://bucket/path/ (is 'x')",
        ),
    ],
)
def test_a_wrong_field_of_a_task_is_named_with_what_would_be_right(
    fields: dict[str, Any], problem: str
) -> None:
    assert problems_of(a_task(**fields)) == [f"tasks.count.{problem}"]


@pytest.mark.parametrize(
    ("directory", "problem"),
    [
        ("", "must be given"),
        ("../x", "must not contain '..' (is '../x')"),
        ("/home/../etc", "must not contain '..' (is '/home/../etc')"),
        ("/", "must be a directory of its own, not the root of the node (is '/')"),
        ("//.", "must be a directory of its own, not the root of the node (is '//.')"),
        ("./", "must be a directory of its own, not the work directory itself (is './')"),
        ("/etc", "must not lie in /etc, which belongs to the system (is '/etc')"),
        ("//usr/./local/", "must not lie in /usr, which belongs to the system (is '//usr/./local/')"),
        ("a\tb", r"must hold printable characters only (is 'a\tb')"),
        ("a\0", "must not contain a NUL character (is at position 1)"),
        ("x" * 1024, "must be at most 1023 bytes long (is 1024)"),
    ],
)
def test_what_is_mapped_gets_a_directory_that_hides_nothing(directory: str, problem: str) -> None:
    taken = InputMapping(source="oss://bucket/in/", destination=directory)
    given = OutputMapping(source=directory, destination="oss://bucket/out/")
    assert problems_of(a_task(inputs=(taken,), outputs=(given,))) == [
        f"tasks.count.inputs[0].destination: {problem}",
        f"tasks.count.outputs[0].source: {problem}",
    ]


@pytest.mark.parametrize("directory", ["etc", "./usr/", "/home/etc", "/etcetera", "data..old"])
def test_a_directory_that_only_looks_like_the_systems_is_allowed(directory: str) -> None:
    assert problems_of(a_task(inputs=(InputMapping(source="oss://b/x/", destination=directory),))) == []


def test_two_inputs_need_two_directories_however_they_are_written() -> None:
    taken = tuple(
        InputMapping(source=f"oss://bucket/{name}/", destination=directory)
        for name, directory in [("a", "data/in"), ("b", "./data//in/")]
    )
    assert problems_of(a_task(inputs=taken)) == [
        "tasks.count.inputs[1].destination: must be a directory of its own; "
        "'./data//in/' is the place of the input 'oss://bucket/a/'"
    ]


def test_an_output_is_not_taken_from_the_directory_of_an_input() -> None:
    taken = InputMapping(source="oss://bucket/a/", destination="/home/data")
    given = OutputMapping(source="/home/data/", destination="oss://bucket/b/")
    assert problems_of(a_task(inputs=(taken,), outputs=(given,))) == [
        "tasks.count.outputs[0].source: must be a directory of its own; "
        "'/home/data/' is the place of the input 'oss://bucket/a/'"
    ]


def test_more_mappings_than_a_node_should_make_are_refused() -> None:
    taken = tuple(InputMapping(source="oss://b/", destination=f"in{i}") for i in range(101))
    assert problems_of(a_task(inputs=taken)) == ["tasks.count.inputs: must be at most 100 (are 101)"]


def test_a_task_whose_name_cannot_serve_is_named_by_its_position() -> None:
    assert problems_of(a_task(""), a_task("a b", instances=0), a_task("x"), a_task("x", instances=0)) == [
        "tasks[0].name: must be given",
        "tasks[1].name: must begin with a letter or digit and go on with letters, digits, '.', '_' and '-' "
        "(is 'a b')",
        "tasks[3].name: must be unique; another task is called x too",
        "tasks[1].instances: must be >= 1 (is 0)",
        "tasks[3].instances: must be >= 1 (is 0)",
    ]


@pytest.mark.parametrize("name", ["-a", ".a", "a\n", "é", "a/b", "x" * 61])
def test_a_task_name_is_fit_for_object_names_and_tables(name: str) -> None:
    assert [problem.path for problem in check_job(a_job(a_task(name)))] == ["tasks[0].name"]


def test_a_cycle_is_named_node_by_node_in_the_order_of_running() -> None:
    tasks = (a_task("a", ("c",)), a_task("b", ("a",)), a_task("c", ("b",)), a_task("d", ("c",)))
    assert problems_of(*tasks) == ["tasks: form a cycle: a -> b -> c -> a; take one of these steps away"]


def test_each_cycle_of_its_own_is_named_and_the_tasks_between_them_are_not() -> None:
    tasks = (
        a_task("a", ("b",)),
        a_task("b", ("a",)),
        a_task("between", ("b",)),
        a_task("y", ("z", "between")),
        a_task("z", ("y",)),
    )
    assert sorted(problems_of(*tasks)) == [
        "tasks: form a cycle: a -> b -> a; take one of these steps away",
        "tasks: form a cycle: y -> z -> y; take one of these steps away",
    ]


def test_of_several_ways_round_the_shortest_is_named() -> None:
    tasks = (a_task("a", ("d", "b")), a_task("b", ("a",)), a_task("c", ("b",)), a_task("d", ("c",)))
    assert problems_of(*tasks) == ["tasks: form a cycle: a -> b -> a; take one of these steps away"]


def test_a_task_after_itself_is_named_once() -> None:
    assert problems_of(a_task("a", ("a",))) == ["tasks.a.after: a cannot come after itself"]


def test_the_same_task_twice_in_after_is_named() -> None:
    assert problems_of(a_task("a"), a_task("b", ("a", "a"))) == [
        "tasks.b.after: names 'a' 2 times; once is enough"
    ]


def test_a_long_cycle_is_drawn_with_its_middle_left_out() -> None:
    tasks = [a_task(f"t{i}", (f"t{(i - 1) % 1000}",)) for i in range(1000)]
    (problem,) = problems_of(*tasks)
    assert problem.startswith("tasks: form a cycle: t0 -> t1 -> ")
    assert " -> t24 -> (951 more) -> t976 -> " in problem
    assert problem.endswith(" -> t999 -> t0; take one of these steps away")


def test_texts_that_are_too_long_together_are_refused() -> None:
    small = replace(SpecLimits(), spec_bytes=100)
    problems = check_job(a_job(a_task(command=ShellLine(line="x" * 110))), small)
    assert [str(problem) for problem in problems] == ["must hold at most 100 bytes of text (holds 110)"]


def test_ten_thousand_tasks_in_a_chain_are_checked_in_less_than_a_second() -> None:
    chain = [a_task("t0"), *(a_task(f"t{i}", (f"t{i - 1}",)) for i in range(1, 10_000))]
    began = process_time()
    assert check_job(a_job(*chain)) == []
    assert process_time() - began < 1


def test_ten_thousand_tasks_in_one_cycle_are_checked_in_less_than_a_second() -> None:
    ring = [a_task(f"t{i}", (f"t{(i - 1) % 10_000}",)) for i in range(10_000)]
    began = process_time()
    assert len(check_job(a_job(*ring))) == 1
    assert process_time() - began < 1


def test_five_thousand_cycles_are_named_in_less_than_two_seconds() -> None:
    pairs = [a_task(f"t{i}", (f"t{i ^ 1}",)) for i in range(10_000)]
    began = process_time()
    assert len(check_job(a_job(*pairs))) == 5_000
    assert process_time() - began < 2


def test_a_hundred_thousand_dependencies_are_checked_in_less_than_a_second() -> None:
    dense = [a_task(f"t{i}", tuple(f"t{j}" for j in range(max(0, i - 100), i))) for i in range(1_000)]
    began = process_time()
    assert check_job(a_job(*dense)) == []
    assert process_time() - began < 1


def test_ten_thousand_unknown_names_are_checked_in_less_than_two_seconds() -> None:
    strays = [a_task(f"task-number-{i}", (f"tusk-number-{i}",)) for i in range(10_000)]
    began = process_time()
    problems = check_job(a_job(*strays))
    assert process_time() - began < 2
    assert str(problems[0]).endswith("did you mean task-number-0?")
    assert len(problems) == 10_000


def test_the_nearest_word_is_found_whatever_its_case_and_only_when_it_is_near() -> None:
    known = ("instances", "timeout", "retries")
    assert nearest("instnaces", known) == "instances"
    assert nearest("TimeOut", known) == "timeout"
    assert nearest("colour", known) is None
