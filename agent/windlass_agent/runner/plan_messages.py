"""Plans as messages to a keeper; what the plans of one task share travels once."""

from collections.abc import Mapping
from typing import Any

from windlass_agent.core.run_plan import CommandPlan
from windlass_agent.spool.durable import JsonRecord
from windlass_agent.spool.keeper_records import ref_to_json

TEMPLATES = 8
"""That a keeper remembers; of more tasks at once, the one that came first is sent again."""
_FIELDS = (
    *("argv", "work_dir", "output_dir", "timeout_s", "kill_grace_s", "memory_bytes"),
    *("outlive_s", "on_full_spool", "isolation", "pids", "open_files", "cpu", "undo"),
)


class PlanMessages:
    """For one connection: a keeper forgets its templates with it."""

    def __init__(self) -> None:
        self._templates: dict[str, tuple[int, CommandPlan]] = {}
        self._next = 0

    def messages(self, plan: CommandPlan, share: str | None) -> list[JsonRecord]:
        """One, or two for the first plan of a `share`."""
        if share is None:
            return [_whole(plan) | {"is": "run", "ref": ref_to_json(plan.ref)}]
        known = self._templates.get(share)
        if known is not None:
            return [_difference(plan, *known)]
        number = self._next % TEMPLATES
        self._next += 1
        if len(self._templates) >= TEMPLATES:
            del self._templates[next(iter(self._templates))]
        self._templates[share] = (number, plan)
        return [_whole(plan) | {"is": "template", "id": number}, _difference(plan, number, plan)]


def _whole(plan: CommandPlan) -> JsonRecord:
    return {name: getattr(plan, name) for name in _FIELDS} | {"env": dict(plan.env)}


def _difference(plan: CommandPlan, number: int, base: CommandPlan) -> JsonRecord:
    message: JsonRecord = {"is": "run", "ref": ref_to_json(plan.ref), "template": number}
    for name in _FIELDS:
        value = getattr(plan, name)
        if value != getattr(base, name):
            message[name] = value
    message["env"] = _changed(plan.env, base.env)
    gone = [name for name in base.env if name not in plan.env]
    return message | {"unset": gone} if gone else message


def _changed(env: Mapping[str, str], base: Mapping[str, str]) -> dict[str, Any]:
    return {name: value for name, value in env.items() if base.get(name) != value}
