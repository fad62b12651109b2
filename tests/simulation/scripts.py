"""What a simulated command does, written into its arguments for the keeper and the oracle to read."""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandScript:
    run_s: float = 0.3
    code: int = 0
    """Of the instances in `bad`; the others exit with 0."""
    bad: tuple[int, ...] = ()
    until: int = 0
    """Bad instances fail in attempts up to this number only; 0 = always."""
    hangs: bool = False
    """Bad instances never end by themselves."""
    ignores_term: bool = False
    may_overlap: bool = True
    """Whether another attempt of the instance may run at the same time (policy keep_going)."""
    out_bytes: int = 0
    prepare_s: float = 0.0
    prepare_fails: str = ""
    """A failure kind: what bad instances come to before they start."""
    upload_s: float = 0.0
    upload_fails: bool = False

    def argv(self) -> tuple[str, ...]:
        chosen = asdict(self)
        return ("simulated", *(f"{field.name}={chosen[field.name]!r}" for field in fields(self)))

    def is_bad(self, index: int, attempt: int) -> bool:
        return index in self.bad and (not self.until or attempt <= self.until)


def read_script(argv: tuple[str, ...]) -> CommandScript:
    """The inverse of `argv`."""
    values = dict(word.split("=", 1) for word in argv[1:])
    plain = {"True": True, "False": False}
    chosen: dict[str, object] = {}
    for field in fields(CommandScript):
        text = values[field.name]
        if field.name == "bad":
            chosen["bad"] = tuple(int(part) for part in text.strip("()").split(",") if part.strip())
        elif text in plain:
            chosen[field.name] = plain[text]
        elif text.startswith("'"):
            chosen[field.name] = text.strip("'")
        else:
            chosen[field.name] = float(text) if "." in text or "e" in text else int(text)
    return CommandScript(**chosen)  # type: ignore[arg-type]  # each was written by argv()
