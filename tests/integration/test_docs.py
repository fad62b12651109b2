"""The documentation is held to the code: commands, options, defaults, variables, states and examples."""

import ast
import importlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import get_type_hints

import click
import pytest
from pydantic import BaseModel

from tests.support import doc_pages
from windlass.cli.main import root
from windlass.documents import JobDocument, read_yaml
from windlass.jobcfg import read_cfg
from windlass.jobfile import plan_job
from windlass.jobform import JobForm, ResourcesForm, TaskForm
from windlass.profile import load_profile
from windlass_agent import config as agent_config
from windlass_agent.core.mount_plan import MountPlan
from windlass_agent.core.output_gate import Grant, Wish
from windlass_agent.mounts import Storages
from windlass_agent.mounts.copied_inputs import NoMounts
from windlass_agent.runner.steps.base import AttemptFolders, StepContext, StepSettings
from windlass_agent.runner.steps.environment import environment_of
from windlass_agent.runner.task_template import TaskTemplates
from windlass_agent.settings import AgentSettings
from windlass_coordinator import config as coordinator_config
from windlass_coordinator.admin.commands import VERBS, run_verb
from windlass_coordinator.settings_tree import paths
from windlass_proto.errors import InvalidJob
from windlass_proto.model.assignments import AssignmentBatch
from windlass_proto.model.environment import NodeVariables
from windlass_proto.model.failures import FailureKind
from windlass_proto.model.ids import AttemptRef, ClusterName, Fence, JobId, TaskKey, TaskName
from windlass_proto.model.specs import Argv, TaskSpec, task_to_json
from windlass_proto.model.states import AttemptState, InstanceState, JobState, LogState, NodeState, TaskState
from windlass_proto.model.storage import StorageProfile, StorageProfiles

DAEMONS: dict[str, Callable[[list[str]], object]] = {
    "windlass-coordinator": coordinator_config.load_settings,
    "windlass-agent": agent_config.load_settings,
    "batch-agent": agent_config.load_settings,
}
VERBS_OF = {"windlass-coordinator": tuple(VERBS)}
STATES: dict[str, type[StrEnum]] = {
    "Job state": JobState,
    "Task state": TaskState,
    "Instance state": InstanceState,
    "Attempt state": AttemptState,
    "Node state": NodeState,
    "Log state": LogState,
    "Failure kind": FailureKind,
}
FORMS: dict[str, type[BaseModel]] = {"Job field": JobForm, "Task field": TaskForm, "Resource": ResourcesForm}


def test_every_windlass_command_that_is_shown_exists_with_its_options() -> None:
    shown = [(page, line) for page, line in doc_pages.command_lines() if line.split()[:1] == ["windlass"]]
    wrong = [f"{page.name}: {line}: {why}" for page, line in shown if (why := _what_is_wrong(line))]
    assert wrong == []
    assert len(shown) > 50  # else they are not found any more


def test_every_command_of_windlass_is_documented() -> None:
    text = (doc_pages.ROOT / "docs/user/cli.md").read_text(encoding="utf-8")
    assert [name for name in root.commands if f"windlass {name}" not in text] == []


def test_every_option_that_is_named_belongs_to_one_of_the_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = {option for command in _commands(root) for option in _options_of(command)}
    for program in DAEMONS:
        known |= set(_words_of_help(program, capsys))
    named = {
        (page.name, code.split()[0]) for page, code in doc_pages.inline_code() if re.match("--[a-z]", code)
    }
    assert {(page, option) for page, option in named if option not in known} == set()
    assert len(named) > 30


def test_options_of_the_daemons_that_are_shown_exist(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for page, line in doc_pages.command_lines():
        program = line.split()[0] if line.split() else ""
        if program in DAEMONS:
            known = _words_of_help(program, capsys)
            options = [word for word in shlex.split(line, comments=True) if word.startswith("-")]
            wrong += [f"{page.name}: {line}: {word}" for word in options if word not in known]
    assert wrong == []


def test_the_coordinators_settings_are_documented_with_their_defaults() -> None:
    documented = doc_pages.table("Coordinator setting") | doc_pages.table("Limit")
    assert set(documented) == set(paths(coordinator_config.Settings()))
    variables = _as_variables(documented, prefix="WINDLASS_COORDINATOR_")
    plain = coordinator_config.load_settings(["--data", "d"], environment={})
    assert coordinator_config.load_settings(["--data", "d"], environment=variables) == plain


def test_the_agents_settings_are_documented_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["--state", "s", "--coordinator", "127.0.0.1:1"]
    monkeypatch.delenv("WINDLASS_AGENT_WORK_ISOLATION", raising=False)
    plain = agent_config.load_settings(needed)
    documented = doc_pages.table("Agent setting")
    assert set(documented) == set(_setting_names(AgentSettings))
    for name, value in _as_variables(documented, prefix="WINDLASS_AGENT_").items():
        monkeypatch.setenv(name, value)
    assert agent_config.load_settings(needed) == plain


def test_the_variables_of_a_command_are_documented_and_no_others(tmp_path: Path) -> None:
    documented = set(doc_pages.table("Variable"))
    assert documented == set(_environment_of_a_command(tmp_path))


def test_every_variable_that_is_named_is_given_or_read_by_a_program(tmp_path: Path) -> None:
    known = set(_environment_of_a_command(tmp_path)) | {
        "WINDLASS_COORDINATOR_CONFIG",
        "WINDLASS_AGENT_CONFIG",
    }
    known |= {"WINDLASS_PROFILE", "WINDLASS_DATA"}
    known |= set(_as_variables(dict.fromkeys(paths(coordinator_config.Settings())), "WINDLASS_COORDINATOR_"))
    known |= set(_as_variables(dict.fromkeys(_setting_names(AgentSettings)), "WINDLASS_AGENT_"))
    named = {
        (page.name, code)
        for page, code in doc_pages.inline_code()
        if code.startswith(("WINDLASS_", "BATCH_")) and code.isupper() and not code.endswith("_")
    }
    assert {(page, name) for page, name in named if name not in known} == set()


def test_what_the_command_line_reads_from_variables_is_said_in_its_help() -> None:
    helps = " ".join(str(getattr(p, "help", "")) for one in _commands(root) for p in one.params)
    assert "WINDLASS_PROFILE" in helps
    assert "WINDLASS_DATA" in helps


@pytest.mark.parametrize("header", STATES)
def test_states_and_failure_kinds_are_documented(header: str) -> None:
    assert set(doc_pages.table(header)) == {member.value for member in STATES[header]}


@pytest.mark.parametrize("header", FORMS)
def test_the_fields_of_a_job_file_are_documented(header: str) -> None:
    extra = {"defaults"} if header == "Job field" else set()
    assert set(doc_pages.table(header)) == set(FORMS[header].model_fields) | extra


def test_the_keys_of_job_cfg_are_documented(tmp_path: Path) -> None:
    document = read_cfg("[DEFAULT]\nqqqqqqq=1\n", directory=tmp_path, origin="job.cfg")
    known = str(document.problems[0]).partition("known are ")[2].split(", ")
    assert len(known) > 20
    text = (doc_pages.ROOT / "docs/user/jobs.md").read_text(encoding="utf-8")
    assert [key for key in known if f"`{key}`" not in text.partition("## job.cfg")[2]] == []


def test_links_lead_somewhere() -> None:
    broken = []
    for page, target in doc_pages.links():
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.exists() or (anchor and anchor not in doc_pages.anchors(place)):
            broken.append(f"{page.relative_to(doc_pages.ROOT)}: {target}")
    assert broken == []


@pytest.mark.parametrize("block", doc_pages.blocks("yaml"), ids=lambda block: str(block.page.name))
def test_the_job_files_shown_are_good(block: doc_pages.CodeBlock, tmp_path: Path) -> None:
    assert _problems_beyond_packages(read_yaml(block.text, directory=tmp_path, origin="job.yaml")) == []


def test_the_job_cfgs_shown_are_good(tmp_path: Path) -> None:
    for block in doc_pages.blocks("ini"):
        if "cmd=" in block.text:
            document = read_cfg(block.text, directory=tmp_path, origin="job.cfg")
            assert _problems_beyond_packages(document) == []


def test_the_settings_files_shown_are_good(tmp_path: Path) -> None:
    names = []
    for block in doc_pages.blocks("toml"):
        name = block.text.partition("\n")[0].removeprefix("# ")
        file = tmp_path / name
        file.write_text(block.text, encoding="utf-8")
        match name:
            case "coordinator.toml":
                coordinator_config.load_settings(["--config", str(file)], environment={})
            case "agent.toml":
                agent_config.load_settings(["--config", str(file)])
            case "client.toml":
                load_profile(file)
            case "storage.toml":
                agent_config.load_storage(file)
        names.append(name)
    assert set(names) == {"coordinator.toml", "agent.toml", "client.toml", "storage.toml"}


def test_storage_profile_keys_are_documented() -> None:
    assert set(doc_pages.table("Profile key")) == {field.name for field in fields(StorageProfile)}


def test_the_python_shown_compiles_and_imports_what_exists() -> None:
    for block in doc_pages.blocks("python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def _what_is_wrong(line: str) -> str | None:
    """Of a line that begins with `windlass`: an unknown command or option; None = nothing."""
    try:
        words = shlex.split(line, comments=True)[1:]
    except ValueError:
        return "cannot be split into words"
    command: click.Command = root
    while words:
        word = words.pop(0)
        if word in ("--", "<"):
            return None
        if word.startswith("-") and not word.lstrip("-").isdigit() and word != "-":
            option = word.partition("=")[0]
            found = _options_of(command).get(option)
            if found is None:
                return f"{command.name} has no option {option}"
            if not found and words:
                words.pop(0)
        elif isinstance(command, click.Group):
            if word not in command.commands:
                return f"there is no command {word}"
            command = command.commands[word]
    return None


def _commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from _commands(below)


def _options_of(command: click.Command) -> dict[str, bool]:
    """Every spelling of each option, and whether it is a flag."""
    found = {"--help": True, "-h": True}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            found.update(dict.fromkeys((*parameter.opts, *parameter.secondary_opts), parameter.is_flag))
    return found


def _words_of_help(program: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        DAEMONS[program](["--help"])
    for verb in VERBS_OF.get(program, ()):
        with pytest.raises(SystemExit):
            run_verb([verb, "--help"])
    return {word.strip("[],|()") for word in capsys.readouterr().out.split()}


def _setting_names(settings: type, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(settings)
    for field in fields(settings):
        if is_dataclass(hints[field.name]):
            yield from _setting_names(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _as_variables(documented: Mapping[str, list[str] | None], prefix: str) -> dict[str, str]:
    """Each setting's variable with the default that the table tells; those without one are left out."""
    variables = {}
    for name, cells in documented.items():
        default = (cells or ["?"])[0].strip("`")
        if default:
            variables[prefix + name.replace(".", "_").upper()] = default
    return variables


class _ShutGate:
    """Nothing is written anywhere."""

    async def held(self) -> None: ...

    def check(self) -> None: ...

    async def commit(self, wish: Wish) -> Grant:
        return Grant(granted=False)


def _environment_of_a_command(state: Path) -> dict[str, str]:
    spec = TaskSpec(name=TaskName("count"), command=Argv(args=("true",)))
    names = {field.name: "x" for field in fields(NodeVariables)}
    batch = AssignmentBatch(
        task_key=TaskKey(1),
        job_id=JobId("job-1"),
        task_name=spec.name,
        instance_count=3,
        spec=task_to_json(spec),
        cluster=ClusterName("default"),
        index=(0,),
        attempt=(1,),
        fence=(1,),
    )
    context = StepContext(
        ref=AttemptRef(task_key=TaskKey(1), index=0, attempt=1, fence=Fence(1)),
        job_id=batch.job_id,
        spec=spec,
        folders=AttemptFolders(root=state),
        storages=Storages(StorageProfiles(by_scheme={}), threads=1),
        mounter=NoMounts("nothing is mounted here"),
        settings=StepSettings(
            package_limit_bytes=1,
            package_limit_entries=1,
            package_limit_ratio=1,
            package_timeout=timedelta(hours=1),
            mount_timeout=timedelta(hours=1),
            upload_timeout=timedelta(hours=1),
        ),
        mounts=MountPlan(inputs=(), outputs=(), binds=()),
        gate=_ShutGate(),
    )
    template = TaskTemplates(NodeVariables(**names), kill_grace=timedelta(seconds=1)).of(batch)
    return environment_of(context, template)


def _problems_beyond_packages(document: JobDocument) -> list[str]:
    """The examples' programs are not here; everything else about the job must be right."""
    try:
        plan_job(document)
    except InvalidJob as error:
        return [str(one) for one in error.problems if "there is no file or folder" not in one.message]
    return []
