"""What the plans of one task share travels once."""

from dataclasses import replace

from windlass_agent.core.run_plan import CommandPlan
from windlass_agent.runner.plan_messages import TEMPLATES, PlanMessages
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey


def a_plan(index: int = 0, **env: str) -> CommandPlan:
    return CommandPlan(
        ref=AttemptRef(task_key=TaskKey(1), index=index, attempt=1, fence=Fence(2)),
        argv=("prog", "arg"),
        env={"A": "1", "B": "2"} | env,
        work_dir=None,
        output_dir=f"/attempts/{index}",
        timeout_s=60.0,
        kill_grace_s=5.0,
        memory_bytes=0,
    )


def test_the_first_plan_of_a_task_brings_the_template_and_the_next_only_what_differs() -> None:
    messages = PlanMessages()
    first = messages.messages(a_plan(0), "task")
    second = messages.messages(a_plan(1, B="3"), "task")
    assert [message["is"] for message in first] == ["template", "run"]
    assert first[0]["argv"] == ("prog", "arg")
    assert second == [
        {"is": "run", "ref": [1, 1, 1, 2], "template": 0, "output_dir": "/attempts/1", "env": {"B": "3"}}
    ]


def test_what_the_template_has_and_the_plan_has_not_is_taken_away() -> None:
    messages = PlanMessages()
    messages.messages(a_plan(0, C="4"), "task")
    (second,) = messages.messages(replace(a_plan(1), argv=("other",), timeout_s=None), "task")
    assert (second["unset"], second["argv"], second["timeout_s"]) == (["C"], ("other",), None)


def test_a_plan_that_shares_nothing_travels_whole() -> None:
    (message,) = PlanMessages().messages(a_plan(), None)
    assert message["env"] == {"A": "1", "B": "2"}
    assert "template" not in message


def test_a_template_that_made_room_for_another_is_sent_again() -> None:
    messages = PlanMessages()
    for task in range(TEMPLATES + 1):
        messages.messages(a_plan(), f"task {task}")
    assert [m["is"] for m in messages.messages(a_plan(), "task 1")] == ["run"]
    again = messages.messages(a_plan(), "task 0")
    assert [m["is"] for m in again] == ["template", "run"]
    assert again[0]["id"] == 1
    assert [m["is"] for m in messages.messages(a_plan(), "task 1")] == ["template", "run"]
