"""What is kept of damaged records, and what a notice on disk says."""

from pathlib import Path

from windlass_agent.runner.notice import Notice, read_notice, write_notice
from windlass_agent.spool.durable import parse_json_lines
from windlass_agent.spool.evidence import Evidence
from windlass_agent.spool.intents import IntentJournal
from windlass_proto.model.ids import AttemptRef, Fence, TaskKey


def a_ref(index: int) -> AttemptRef:
    return AttemptRef(task_key=TaskKey(7), index=index, attempt=1, fence=Fence(3))


def test_a_damaged_file_is_kept_once_for_each_content(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "evidence")
    damaged = tmp_path / "intents"
    for data in (b"one\n\0\0\0", b"one\n", b"two\n"):
        damaged.write_bytes(data)
        evidence.keep(damaged)
    assert sorted(path.read_bytes() for path in (tmp_path / "evidence").iterdir()) == [b"one\n", b"two\n"]


def test_evidence_is_bounded_and_the_oldest_goes_first(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "evidence")
    damaged = tmp_path / "intents"
    for number in range(40):
        damaged.write_bytes(b"%d\n" % number)
        evidence.keep(damaged)
    kept = {path.read_bytes() for path in (tmp_path / "evidence").iterdir()}
    assert len(kept) == 32
    assert b"39\n" in kept


def test_evidence_that_cannot_be_kept_keeps_nobody_from_going_on(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("a file where the directory should be")
    (tmp_path / "intents").touch()
    Evidence(tmp_path / "evidence").keep(tmp_path / "intents")
    Evidence(tmp_path / "evidence").keep(tmp_path / "missing")


def test_damage_in_the_middle_hides_nothing_behind_it(tmp_path: Path) -> None:
    journal = IntentJournal(tmp_path / "intents")
    for index in range(3):
        journal.assign({"spec": "x"}, [a_ref(index)])
    journal.close()
    lines = (tmp_path / "intents").read_bytes().splitlines(keepends=True)
    lines[1] = b"\0" * len(lines[1])
    (tmp_path / "intents").write_bytes(b"".join(lines))
    evidence = Evidence(tmp_path / "evidence")
    found = IntentJournal(tmp_path / "intents", evidence=evidence)
    # The zeroed line has lost its end, and with it the next one.
    assert (set(found.live), found.damaged) == ({a_ref(0)}, 1)
    found.close()
    again = IntentJournal(tmp_path / "intents", evidence=evidence)
    assert (set(again.live), again.damaged) == ({a_ref(0)}, 0)
    again.close()
    assert len(list((tmp_path / "evidence").iterdir())) == 1


def test_noughts_inside_are_damage_and_those_at_the_end_are_room() -> None:
    found = parse_json_lines(b'{"a":1}\n\0\0\0\n{"b":2}\n\0\0\0')
    assert (found.records, found.damaged) == (({"a": 1}, {"b": 2}), 1)


def test_a_notice_is_read_as_it_was_written(tmp_path: Path) -> None:
    notice = Notice(boot_id="boot", ends_at_s=12.5)
    write_notice(tmp_path / "notice.json", notice)
    assert read_notice(tmp_path / "notice.json") == notice


def test_a_notice_that_makes_no_sense_is_none(tmp_path: Path) -> None:
    path = tmp_path / "notice.json"
    assert read_notice(path) is None
    for text in ("", "{}", "[]", '{"boot_id": "x", "ends_at_s": "soon"}', "\0\0"):
        path.write_text(text)
        assert read_notice(path) is None
