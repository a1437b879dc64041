from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.records import Checked, CheckOutcome
from gpurig.evaljobs.store import StageFile, StageWriter, locked, read_stage


def record(sample: str, key: str, message: str = "") -> Checked:
    outcome = CheckOutcome(check="yaml", passed=not message, message=message)
    return Checked(sample=sample, key=key, outcomes=(outcome,))


def write(path: Path, keys: dict[str, str], *records: Checked) -> None:
    writer = StageWriter(read_stage(path, Checked), keys)
    for one in records:
        writer.append(one)
    writer.finish()
    writer.close()


def read(path: Path) -> StageFile[Checked]:
    return read_stage(path, Checked)


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "checks.jsonl"
    write(path, {"a": "1", "b": "2"}, record("b", "2", "bad\u2028\x1b"), record("a", "1"))
    assert read(path).finished() == {"a": record("a", "1"), "b": record("b", "2", "bad\u2028\x1b")}
    assert list(read(path).finished()) == ["a", "b"]


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "checks.jsonl").finished() == {}


def test_the_last_run_says_which_records_count(tmp_path: Path) -> None:
    path = tmp_path / "checks.jsonl"
    write(path, {"a": "old"}, record("a", "old"))
    write(path, {"a": "new"}, record("a", "new", "no"))
    assert read(path).finished() == {"a": record("a", "new", "no")}
    write(path, {"a": "old"})
    assert read(path).finished() == {"a": record("a", "old")}


def test_of_records_with_the_same_key_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "checks.jsonl"
    write(path, {"a": "1"}, record("a", "1", "first"), record("a", "1", "second"))
    assert read(path).finished()["a"].outcomes[0].message == "second"


def test_the_same_run_again_adds_no_line(tmp_path: Path) -> None:
    path = tmp_path / "checks.jsonl"
    write(path, {"a": "1", "b": "2"}, record("a", "1"))
    before = path.read_bytes()
    write(path, {"a": "1", "b": "2"})
    assert path.read_bytes() == before
    write(path, {"b": "2", "a": "1"})
    assert list(read(path).finished({"b": "2", "a": "1"})) == ["a"]
    assert path.read_bytes() != before


def test_an_unfinished_last_line_is_not_there_and_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "checks.jsonl"
    write(path, {"a": "1", "b": "2"}, record("a", "1"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"version":1,"record":"check","sam')
    assert list(read(path).finished()) == ["a"]
    write(path, {"a": "1", "b": "2"}, record("b", "2"))
    assert path.read_bytes().startswith(whole)
    assert list(read(path).finished()) == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "Invalid JSON"),
        ("[]", "no record of this stage"),
        ("{}", "record: Field required"),
        ('{"record":"generation","sample":"a","key":"1"}', "record: "),
        ('{"record":"check","version":2,"sample":"a","key":"1","outcomes":[]}', "version: Input should be 1"),
        ('{"record":"run","started":"x"}', "keys: Field required"),
        ("\x00", "Invalid JSON"),
    ],
)
def test_a_damaged_line_is_named_with_its_number(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "checks.jsonl"
    write(path, {"a": "1"}, record("a", "1"))
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(InputError, match=r"checks\.jsonl:3: ") as caught:
        read(path)
    assert says in caught.value.message
    assert "delete that line" in caught.value.hint


def test_fields_of_a_newer_writer_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "checks.jsonl"
    write(path, {"a": "1"})
    with path.open("a") as stream:
        stream.write('{"record":"check","sample":"a","key":"1","outcomes":[],"mood":"new"}\n')
    assert list(read(path).finished()) == ["a"]


def test_a_full_or_forbidden_disk_is_a_missing_prerequisite(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PrerequisiteError, match="cannot write"):
        write(tmp_path / "file" / "checks.jsonl", {"a": "1"})


def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    holds, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(tell, b"1")
            signal.pause()
    try:
        assert os.read(holds, 1) == b"1"
        with pytest.raises(PrerequisiteError, match="another gpurig-job works in"), locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(holds)
        os.close(tell)
    # The lock ends with the process, however that ends.
    with locked(tmp_path):
        pass


def test_a_run_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_leaves_no_file_and_removes_no_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with locked(tmp_path / "old"):
        pass
    with locked(tmp_path / "new"):
        (tmp_path / "new" / "record").write_text("")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["new", "new/record", "old"]
