"""job.cfg of the vendor's own command line."""

from pathlib import Path

import pytest

from windlass.jobcfg import parse_deps
from windlass.jobfile import PlannedJob, plan_job, read_job_file
from windlass_proto.errors import InvalidJob
from windlass_proto.model.specs import Argv, Container, InputMapping, OutputMapping


def planned(text: str, *, directory: Path = Path("/nowhere")) -> PlannedJob:
    return plan_job(read_job_file(directory / "job.cfg", text=text))


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        planned(text)
    return sorted(str(problem) for problem in caught.value.problems)


def test_the_seeds_own_file_is_understood(tmp_path: Path) -> None:
    (tmp_path / "log-count").mkdir()
    job = planned(
        "[DEFAULT]\njob_name=log-count\ndescription=demo\npack=./log-count/\n"
        "deps=split->count;count->merge\n"
        "[split]\ncmd=python split.py\n[count]\ncmd=python count.py\nnodes=3\n[merge]\ncmd=python merge.py\n",
        directory=tmp_path,
    )
    told = [(task.name, task.command, task.after, task.instances) for task in job.spec.tasks]
    assert told == [
        ("split", Argv(args=("python", "split.py")), (), 1),
        ("count", Argv(args=("python", "count.py")), ("split",), 3),
        ("merge", Argv(args=("python", "merge.py")), ("count",), 1),
    ]
    assert (job.spec.name, job.spec.description, job.notes) == ("log-count", "demo", ())
    assert set(job.packages.values()) == {(tmp_path / "log-count",)}


def test_environments_and_mappings_are_merged_and_the_rest_is_replaced() -> None:
    job = planned(
        "[DEFAULT]\ntimeout=60\nenv=A:1,B:1\nread_mount=oss://b/in/:/tmp/in\nwrite_mount=/tmp/out:oss://b/out/\n"
        "[one]\ncmd=x\nenv=B:2\ntimeout=120\nread_mount=oss://b/more/:/tmp/more:false\n"
    )
    (task,) = job.spec.tasks
    assert (task.env, task.timeout.total_seconds() if task.timeout else 0) == ({"A": "1", "B": "2"}, 120)
    assert task.inputs == (
        InputMapping(source="oss://b/in/", destination="/tmp/in"),
        InputMapping(source="oss://b/more/", destination="/tmp/more"),
    )
    assert task.outputs == (OutputMapping(source="/tmp/out", destination="oss://b/out/"),)


def test_a_command_is_split_as_a_shell_would_but_no_shell_runs_it() -> None:
    (task,) = planned("[a]\ncmd=sh -c 'echo $HOME | cat' \"two words\"\n").spec.tasks
    assert task.command == Argv(args=("sh", "-c", "echo $HOME | cat", "two words"))


def test_variables_are_put_in_and_doubled_percent_signs_are_one() -> None:
    (task,) = planned("[DEFAULT]\n$in=oss://b/data\n$input=no\n[a]\ncmd=date +%%Y $in/x $input\n").spec.tasks
    assert task.command == Argv(args=("date", "+%Y", "oss://b/data/x", "no"))


def test_a_lone_percent_sign_is_told() -> None:
    assert problems("[a]\ncmd=x\ndescription=50%\n") == [
        "[a] description: a percent sign must be doubled: %% (is '50%')"
    ]


def test_a_lone_percent_sign_in_a_command_is_told_once() -> None:
    assert problems("[a]\ncmd=date +%Y\n") == ["[a] cmd: a percent sign must be doubled: %% (is 'date +%Y')"]


def test_keys_are_read_in_any_case_and_force_means_that_failures_do_not_end_the_job() -> None:
    spec = planned("[DEFAULT]\nJob_Name=x\nFORCE=yes\nPriority=7\n[a]\nCMD=x\n").spec
    assert (spec.name, spec.fail_on_instance_failure, spec.priority) == ("x", False, 7)


def test_a_file_of_defaults_alone_is_a_job_of_one_task() -> None:
    job = planned("[DEFAULT]\ncmd=echo hi\nnodes=2\n")
    assert [(task.name, task.instances) for task in job.spec.tasks] == [("task", 2)]
    assert job.spec.name == "cli-job"


def test_what_only_the_vendors_cloud_has_is_named_not_dropped_in_silence() -> None:
    job = planned("[a]\ncmd=x\nimage=img-ubuntu\ncluster=cls-1\n")
    assert [note.partition(":")[0] for note in job.notes] == [
        "[a] image is ignored",
        "[a] cluster is ignored",
    ]
    assert job.spec.tasks[0].cluster == "default"


@pytest.mark.parametrize(
    ("text", "container"),
    [
        ("localhost:5000/y@oss://b/d/", Container(image="localhost:5000/y", registry="oss://b/d/")),
        ("debian:12", Container(image="debian:12")),
        ("tool@sha256:" + "0" * 64, Container(image="tool@sha256:" + "0" * 64)),
    ],
)
def test_docker_names_an_image_and_the_registry_that_has_it(text: str, container: Container) -> None:
    assert planned(f"[a]\ncmd=x\ndocker={text}\n").spec.tasks[0].container == container


def test_a_cluster_of_ours_is_used() -> None:
    assert planned("[a]\ncmd=x\ncluster=big\n").spec.tasks[0].cluster == "big"


def test_problems_are_told_at_once_in_the_words_of_the_file() -> None:
    told = problems(
        "[DEFAULT]\npriority=high\ndeps=a->c\n"
        '[a]\ncmd=python "x\nnods=3\nnodes=three\n'
        "[b]\nenv=nope\nnodes=0\ntimeout=soon\nforce=maybe\n"
    )
    assert told == sorted(
        [
            "[DEFAULT] priority: must be a whole number (is 'high')",
            "[DEFAULT] deps: there is no section [c]",
            "[a] cmd: No closing quotation",
            "[a] nods: unknown key in [a]; did you mean 'nodes'?",
            "[a] nodes: must be a whole number (is 'three')",
            "[b] cmd: is missing: there is nothing to run (command = a list, shell = a line)",
            "[b] env: must be NAME:VALUE, or NAME:VALUE,NAME:VALUE (is 'nope')",
            "[b] nodes: must be >= 1 (is 0)",
            "[b] timeout: must be a duration such as 90s, 30m or 1h30m, or seconds (is 'soon')",
            "[b] force: must be yes or no (is 'maybe')",
        ]
    )


def test_a_section_that_stands_twice_is_told_with_its_line() -> None:
    assert problems("[a]\ncmd=x\n[a]\ncmd=y\n") == [
        "is not a valid INI file: While reading from 'job.cfg' [line 3]: section 'a' already exists"
    ]


def test_a_cycle_is_told_at_deps() -> None:
    assert problems("[DEFAULT]\ndeps=a->b->a\n[a]\ncmd=x\n[b]\ncmd=y\n") == [
        "deps: form a cycle: a -> b -> a; take one of these steps away"
    ]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("a->b->c", [("a", "b"), ("b", "c")]),
        (
            "split->count1,count2;count1,count2->merge",
            [("split", "count1"), ("split", "count2"), ("count1", "merge"), ("count2", "merge")],
        ),
        (" a -> b ; ", [("a", "b")]),
    ],
)
def test_the_grammar_of_deps(text: str, pairs: list[tuple[str, str]]) -> None:
    assert parse_deps(text) == pairs


@pytest.mark.parametrize("text", ["a", "a->", "->b", "a->,b", "a->b;c"])
def test_what_is_no_chain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="split->count"):
        parse_deps(text)
