"""The native job file: what it says becomes a specification, or all that is wrong with it is told at once."""

from datetime import timedelta
from pathlib import Path

import pytest

from windlass.jobfile import PlannedJob, merge_task, plan_job, read_job_file, with_overrides
from windlass_proto.errors import InvalidJob
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import (
    Argv,
    InputMapping,
    JobSpec,
    OutputMapping,
    ShellLine,
    TaskName,
    TaskSpec,
)


def planned(text: str, *, name: str = "job.yaml", directory: Path = Path("/nowhere")) -> PlannedJob:
    return plan_job(read_job_file(directory / name, text=text))


def problems(text: str, *, name: str = "job.yaml") -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        planned(text, name=name)
    return sorted(str(problem) for problem in caught.value.problems)


def test_every_field_of_a_job_file_reaches_the_specification() -> None:
    job = planned(
        """
        name: log-count
        description: counts levels
        priority: 5
        fail_on_instance_failure: false
        tasks:
          count:
            command: [python3, count.py]
            instances: 3
            package: oss://windlass/packages/a.tar.gz
            env: {LEVEL: debug, TRIES: 2}
            timeout: 1h30m
            retries: 2
            resources: {cpu: 0.5, memory: 512MiB, slots: 2}
            cluster: big
            stdout: oss://windlass/logs/
            stderr: oss://windlass/logs/
            inputs: {"oss://windlass/in/": /tmp/in}
            outputs: {out: "oss://windlass/out/"}
          merge: {shell: "cat out/*", after: count}
        """
    )
    count = TaskSpec(
        name=TaskName("count"),
        command=Argv(args=("python3", "count.py")),
        instances=3,
        package="oss://windlass/packages/a.tar.gz",
        env={"LEVEL": "debug", "TRIES": "2"},
        timeout=timedelta(hours=1, minutes=30),
        max_retries=2,
        resources=Resources(cpu=0.5, memory_bytes=512 * 1024**2, slots=2),
        cluster="big",  # type: ignore[arg-type]
        stdout="oss://windlass/logs/",
        stderr="oss://windlass/logs/",
        inputs=(InputMapping(source="oss://windlass/in/", destination="/tmp/in"),),
        outputs=(OutputMapping(source="out", destination="oss://windlass/out/"),),
    )
    merge = TaskSpec(name=TaskName("merge"), command=ShellLine(line="cat out/*"), after=(TaskName("count"),))
    assert job.spec == JobSpec(
        name="log-count",
        description="counts levels",
        priority=5,
        fail_on_instance_failure=False,
        tasks=(count, merge),
    )
    assert job.packages == {}


def test_json_says_the_same_as_yaml() -> None:
    text = '{"name": "x", "tasks": {"a": {"command": ["true"], "instances": 2}}}'
    assert planned(text, name="job.json").spec == planned(text, name="job.yaml").spec


def test_all_problems_are_told_at_once_each_with_its_path() -> None:
    told = problems(
        """
        name: 7
        prioritty: 3
        defaults: {timout: 5m}
        tasks:
          split: {command: [python3, split.py], timeout: soon}
          count: {command: [python3, 3], after: spilt, instances: 0}
          merge: {shell: cat, resources: {memory: 2Q, cpus: 3}}
          odd: 5
        """
    )
    assert told == sorted(
        [
            "name: must be text; put it in quotes (is 7)",
            "prioritty: unknown field; did you mean 'priority'?",
            "defaults.timout: unknown field; did you mean 'timeout'?",
            "tasks.split.timeout: must be a duration such as 90s, 30m or 1h30m, or seconds (is 'soon')",
            "tasks.count.command[1]: must be text; put it in quotes (is 3)",
            "tasks.count.instances: must be >= 1 (is 0)",
            "tasks.count.after: there is no task 'spilt'; did you mean split?",
            "tasks.merge.resources.memory: must be a size such as 512MiB or 2G, or bytes (is '2Q')",
            "tasks.merge.resources.cpus: unknown field; did you mean 'cpu'?",
            "tasks.odd: must be a mapping (is 5)",
        ]
    )


def test_a_cycle_is_told_beside_a_wrong_type() -> None:
    told = problems("{name: x, tasks: {a: {shell: x, after: b, retries: many}, b: {shell: y, after: a}}}")
    assert told == [
        "tasks.a.retries: must be a whole number (is 'many')",
        "tasks: form a cycle: a -> b -> a; take one of these steps away",
    ]


def test_a_task_needs_exactly_one_form_of_command() -> None:
    assert problems("{name: x, tasks: {a: {}, b: {shell: x, command: [y]}}}") == [
        "tasks.a.command: is missing: there is nothing to run (command = a list, shell = a line)",
        "tasks.b.command: stands beside shell; give one of them",
    ]


def test_a_job_without_name_and_tasks_is_told_both() -> None:
    assert problems("{}") == ["name: is missing", "tasks: is missing"]


def test_a_key_that_stands_twice_is_an_error_with_its_line() -> None:
    text = "name: x\ntasks:\n  a: {shell: x}\n  a: {shell: y}\n"
    assert problems(text) == ["is not valid YAML: line 4, column 3: the key 'a' stands twice"]
    assert problems('{"name": "x", "name": "y"}', name="job.json") == ["the key 'name' stands twice"]


def test_broken_yaml_and_json_name_the_line() -> None:
    assert problems("name: x\ntasks: [unclosed\n")[0].startswith("is not valid YAML: line 3, column 1")
    assert problems('{"name":\n oops}', name="job.json")[0].startswith("is not valid JSON: line 2, column 2")


def test_a_list_is_no_job() -> None:
    assert problems("- a\n- b\n") == ["must be a mapping with name and tasks"]


def test_yaml_cannot_make_python_objects() -> None:
    told = problems("name: !!python/object/apply:os.getcwd []\n")
    assert told[0].startswith("is not valid YAML: line 1, column 7: could not determine a constructor")


def test_defaults_lie_under_each_task_maps_merged_and_the_rest_replaced() -> None:
    job = planned(
        """
        name: x
        defaults: {timeout: 60, env: {A: "1", B: "1"}, command: [default], retries: 3}
        tasks:
          plain: {}
          own: {shell: mine, env: {B: "2"}, timeout: 5m, retries: 0}
        """
    )
    plain, own = job.spec.tasks
    assert (plain.command, plain.env, plain.timeout) == (
        Argv(args=("default",)),
        {"A": "1", "B": "1"},
        timedelta(seconds=60),
    )
    assert (own.command, own.env, own.timeout, own.max_retries) == (
        ShellLine(line="mine"),
        {"A": "1", "B": "2"},
        timedelta(minutes=5),
        0,
    )


def test_a_local_package_is_named_relative_to_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    job = planned("{name: x, tasks: {a: {shell: x, package: ./program}}}", directory=tmp_path)
    assert job.packages == {"a": (tmp_path / "program",)}
    url = "oss://windlass/packages/1.tar.gz"
    assert job.with_packages({TaskName("a"): url}).tasks[0].package == url


def test_a_local_package_that_is_not_there_is_a_problem() -> None:
    told = problems("{name: x, tasks: {a: {shell: x, package: ./program}}}")
    assert told == ["tasks.a.package: there is no file or folder './program' (at /nowhere/program)"]


def test_a_package_that_was_named_in_full_is_named_once() -> None:
    with pytest.raises(InvalidJob) as caught:
        planned("name: x\ntasks: {a: {shell: x, package: /nowhere/program}}")
    assert [problem.message for problem in caught.value.problems] == [
        "there is no file or folder '/nowhere/program'"
    ]


def test_the_command_line_counts_for_every_task_of_the_file() -> None:
    text = "{name: x, tasks: {a: {command: [old], env: {A: '1'}}, b: {shell: y, instances: 2}}}"
    document = read_job_file(Path("/nowhere/job.yaml"), text=text)
    over = with_overrides(document, {"name": "new"}, {"instances": 5, "env": {"B": "2"}, "shell": "z"})
    job = plan_job(over).spec
    assert (job.name, [task.instances for task in job.tasks]) == ("new", [5, 5])
    assert [task.command for task in job.tasks] == [ShellLine(line="z")] * 2
    assert [task.env for task in job.tasks] == [{"A": "1", "B": "2"}, {"B": "2"}]


def test_merging_changes_neither_side() -> None:
    below, above = {"env": {"A": "1"}, "command": ["x"]}, {"env": {"B": "2"}, "shell": "y"}
    assert merge_task(below, above) == {"env": {"A": "1", "B": "2"}, "shell": "y"}
    assert (below, above) == (
        {"env": {"A": "1"}, "command": ["x"]},
        {"env": {"B": "2"}, "shell": "y"},
    )


def test_one_source_may_be_mapped_to_several_places() -> None:
    job = planned('{name: x, tasks: {a: {shell: x, inputs: {"oss://b/in/": [one, two]}}}}')
    assert [mapping.destination for mapping in job.spec.tasks[0].inputs] == ["one", "two"]


def test_an_output_may_name_the_stored_storage_that_it_goes_to() -> None:
    job = planned(
        """
        name: x
        tasks:
          a:
            shell: x
            storage: ours
            mounts: [{source: "oss://b/in/", destination: in, storage: theirs}]
            outputs:
              one: {destination: "oss://b/1/", storage: backup}
              two: ["oss://b/2/", {destination: "s3://b/3/"}]
        """
    )
    task = job.spec.tasks[0]
    assert (task.storage, task.inputs[0].storage) == ("ours", "theirs")
    assert task.outputs == (
        OutputMapping(source="one", destination="oss://b/1/", storage="backup"),
        OutputMapping(source="two", destination="oss://b/2/"),
        OutputMapping(source="two", destination="s3://b/3/"),
    )


def test_a_wrong_output_is_named_by_its_place() -> None:
    text = '{name: x, tasks: {a: {shell: x, outputs: {o: 5, p: {url: "oss://b/"}}}}}'
    assert problems(text) == [
        "tasks.a.outputs.o[0]: must be a mapping (is 5)",
        "tasks.a.outputs.p[0].destination: must be given",
        "tasks.a.outputs.p[0].url: unknown field; known are destination, storage",
    ]
