"""Specifications are the same after their stored form."""

from dataclasses import replace

import pytest

from windlass_proto.model.ids import TaskName
from windlass_proto.model.resources import Resources
from windlass_proto.model.specs import (
    Argv,
    Container,
    Isolation,
    LogMapping,
    TaskSpec,
    task_from_json,
    task_to_json,
)

_TASK = TaskSpec(name=TaskName("t"), command=Argv(args=("true",)))
_STORED = {
    "logs": replace(_TASK, logs=(LogMapping(source="a.log", destination="oss://b/logs/"),)),
    "isolation": replace(_TASK, isolation=Isolation.STRICT),
    "resources.pids": replace(_TASK, resources=Resources(pids=10)),
    "resources.open_files": replace(_TASK, resources=Resources(open_files=10)),
    "resources.gpus": replace(_TASK, resources=Resources(gpus=1)),
    "container": replace(_TASK, container=Container(image="debian:12")),
    "input_locale": replace(_TASK, input_locale="GBK"),
    "input_locks": replace(_TASK, input_locks=True),
    "storage": replace(_TASK, storage="ours"),
}


@pytest.mark.parametrize("field", _STORED)
def test_a_specification_is_the_same_after_its_stored_form(field: str) -> None:
    assert task_from_json(task_to_json(_STORED[field])) == _STORED[field]
