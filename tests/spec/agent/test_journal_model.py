"""Records on a disk that keeps nothing whole: what is damaged is counted, what is intact survives."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.examples import examples
from windlass_agent.spool.durable import json_line, parse_json_lines
from windlass_agent.spool.intents import IntentJournal
from windlass_agent.spool.keeper_journal import JournalPins, read_content
from windlass_agent.spool.slot_dir import SlotDir
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey

scalars = st.none() | st.booleans() | st.integers(-5, 2**40) | st.text(max_size=5)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
columns = st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(1, 2), st.integers(1, 5)).map(list)
REF = [9, 9, 9, 9]

good_records: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda ref: {"is": "intent", "ref": ref}, columns),
    st.builds(
        lambda ref, pid: {"is": "start", "ref": ref, "pid": pid, "ticks": 5}, columns, st.integers(2, 9)
    ),
    st.builds(
        lambda ref, status, us: {"is": "exit", "ref": ref, "status": status, "us": us, "out": 1, "err": 2},
        columns,
        st.sampled_from([0, 256, 9, 15]),
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)).map(list),
    ),
)


@st.composite
def odd_records(draw: st.DrawFn) -> dict[str, Any]:
    """JSON that is an object, but no record: a field is gone, or holds something else."""
    record = dict(draw(good_records))
    for name in draw(st.sets(st.sampled_from(["is", "ref", "pid", "status", "us", "ticks"]), min_size=1)):
        if draw(st.booleans()):
            record.pop(name, None)
        else:
            record[name] = draw(json_values)
    return record


lines = st.one_of(
    good_records.map(json_line),
    odd_records().map(json_line),
    st.binary(max_size=30).map(lambda junk: junk.replace(b"\0", b"0") + b"\n"),
    json_values.map(lambda value: json.dumps(value).encode() + b"\n"),
    st.just(b"[" * 100_000 + b"\n"),
)
INTACT = json_line({"is": "exit", "ref": REF, "status": 0})


@examples(100)
@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    for record in parse_json_lines(data).records:
        assert isinstance(record, dict)


@examples(60)
@given(st.lists(good_records, max_size=5), st.data())
def test_a_cut_takes_the_last_record_and_no_other(records: list[dict[str, Any]], data: st.DataObject) -> None:
    whole = b"".join(map(json_line, records))
    cut = data.draw(st.integers(0, len(whole)))
    kept = parse_json_lines(whole[:cut] + b"\0" * 8)
    assert list(kept.records) == records[: whole[:cut].count(b"\n")]
    assert kept.damaged == (cut > 0 and whole[cut - 1 : cut] != b"\n")


@examples(150)
@given(st.lists(lines, max_size=6), st.lists(lines, max_size=6))
def test_what_a_keeper_wrote_between_damaged_lines_is_still_believed(
    before: list[bytes], after: list[bytes]
) -> None:
    with TemporaryDirectory() as directory:
        header = json_line({"is": "segment", "segment": 1, "boot": "b"})
        data = header + b"".join(before) + INTACT + b"".join(after)
        (Path(directory) / "journal.000001").write_bytes(data)
        content = read_content(SlotDir(Path(directory)).read_journal())
    ref = AttemptRef(task_key=TaskKey(9), index=9, attempt=9, fence=Fence(9))
    assert content.ends[ref].code == 0
    assert content.segment_of[ref].number == 1


shared = st.fixed_dictionaries({"job": st.text(max_size=3)})
numbers = st.integers(0, 2**40)


@examples(100)
@given(
    st.lists(
        st.binary(max_size=30).map(lambda junk: junk.replace(b"\0", b"0") + b"\n")
        | json_values.map(lambda value: json.dumps(value).encode() + b"\n")
        | st.fixed_dictionaries(
            {},
            optional={
                "is": st.sampled_from(["assign", "forget", "else"]),
                "task_key": json_values,
                "index": json_values,
                "attempt": json_values,
                "fence": json_values,
                "shared": json_values,
            },
        ).map(json_line),
        max_size=6,
    ),
    st.integers(0, 6),
)
def test_an_agent_starts_whatever_its_intents_look_like(damaged: list[bytes], place: int) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "intents"
        journal = IntentJournal(path)
        ref = AttemptRef(task_key=TaskKey(9), index=9, attempt=9, fence=Fence(9))
        journal.assign({"job": "job"}, [ref])
        journal.close()
        good = path.read_bytes()
        path.write_bytes(b"".join([*damaged[:place], good, *damaged[place:]]))
        journal = IntentJournal(path)
        try:
            assert journal.live[ref] == {"job": "job"}
        finally:
            journal.close()


class Intents(RuleBasedStateMachine):
    """Assigning, forgetting, dying at any byte: after each start exactly what was written down is there."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = Path(self.directory.name) / "intents"
        self.journal = IntentJournal(self.path, compact_bytes=600)
        self.expected: dict[AttemptRef, str] = {}
        self.gpus: dict[AttemptRef, tuple[str, ...]] = {}
        self.made = 0

    @rule(task=st.integers(1, 2), count=st.integers(1, 5), job=st.sampled_from(["a", "b"]))
    def assign(self, task: int, count: int, job: str) -> None:
        refs = []
        for _ in range(count):
            self.made += 1
            refs.append(AttemptRef(task_key=TaskKey(task), index=self.made, attempt=1, fence=Fence(3)))
        self.journal.assign({"job": job}, refs)
        self.expected |= dict.fromkeys(refs, job)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        refs = data.draw(st.lists(st.sampled_from(sorted(self.expected)), max_size=4))
        self.journal.forget([*refs, AttemptRef(task_key=TaskKey(5), index=0, attempt=1, fence=Fence(1))])
        for ref in refs:
            self.expected.pop(ref, None)
            self.gpus.pop(ref, None)

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), names=st.lists(st.sampled_from(["0", "1", "GPU-ab"]), min_size=1, unique=True))
    def give_gpus(self, data: st.DataObject, names: list[str]) -> None:
        ref = data.draw(st.sampled_from(sorted(self.expected)))
        self.journal.give_gpus(ref, names)
        self.gpus[ref] = tuple(names)

    @rule(torn=st.binary(min_size=1, max_size=20).filter(lambda junk: b"\n" not in junk))
    def die_while_writing(self, torn: bytes) -> None:
        self.journal.close()
        with self.path.open("ab") as file:
            file.write(b'{"is":"ass' + torn)
        self.journal = IntentJournal(self.path, compact_bytes=600)

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = IntentJournal(self.path, compact_bytes=600)
        assert list(self.journal.live) == list(self.expected), "in the order of assignment"

    @invariant()
    def live_is_what_was_assigned_and_not_forgotten(self) -> None:
        assert {ref: dict(shared)["job"] for ref, shared in self.journal.live.items()} == self.expected
        assert self.journal.gpus == self.gpus

    def teardown(self) -> None:
        self.journal.close()
        self.directory.cleanup()


TestIntents = Intents.TestCase
TestIntents.settings = examples(30, steps=25)


@examples(80)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40), st.integers(1, 3))
def test_a_segment_is_deleted_once_and_never_while_it_is_needed(
    history: list[tuple[int, bool]], per_segment: int
) -> None:
    deleted: list[int] = []
    pins = JournalPins(deleted.append)
    segment_of: dict[AttemptRef, int] = {}
    begun = 0
    for index, begins in history:
        if begins:
            ref = AttemptRef(task_key=TaskKey(1), index=begun, attempt=1, fence=Fence(1))
            segment_of[ref] = begun // per_segment
            pins.pin(ref, segment_of[ref])
            begun += 1
        else:
            gone = AttemptRef(task_key=TaskKey(1), index=index, attempt=1, fence=Fence(1))
            pins.forget(gone)
            segment_of.pop(gone, None)
        newest = (begun - 1) // per_segment if begun else -1
        assert not set(deleted) & set(segment_of.values())
        assert len(deleted) == len(set(deleted))
        assert set(deleted) == set(range(newest)) - set(segment_of.values())
