"""`aflow tag`, `fsck`, `doctor`."""

import json
from pathlib import Path

import pytest

from engine.scheduler.facts import fact_of
from engine.scheduler.journal import ExecutorLostRecord, encode
from tests.cli.conftest import Call
from tests.unit.client.stored import (
    BEGAN_US,
    failed,
    succeeded,
)

DAY_US = 86_400_000_000


def test_tags_are_added_removed_replaced_and_listed(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1", user="bob")

    assert aflow("tag", "add", "R1", "a", "b").out == "Fan/R1: a, b\n"
    assert aflow("tag", "add", "--run-id", "R1", "c").out == "Fan/R1: a, b, c\n"
    assert aflow("tag", "remove", "@latest", "a", "nope").out == "Fan/R1: b, c\n"
    replaced = aflow("tag", "replace", "-1", "--remove", "b", "--add", "d", "--json")
    assert json.loads(replaced.out) == {
        "schema": "aflow/tags/1",
        "run": "Fan/R1",
        "tags": ["c", "d"],
    }
    assert aflow("tag", "list", "R1").lines == ["c", "d"]
    assert aflow("tag", "list", "--system").lines == ["c", "d", "runtime:dev", "user:bob"]
    assert json.loads(aflow("tag", "list", "--json").out)["tags"] == ["c", "d"]
    assert aflow("tag", "remove", "R1", "c", "d").out == "Fan/R1: no tags\n"


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["add", "R1"], "no tag is named"),
        (["remove", "R1", "user:ada"], "'user:ada' is a system tag"),
        (["replace", "R1", "x"], "'x' is neither --add nor --remove"),
        (["add", "R1", "x" * 300], "cannot be a tag"),
    ],
)
def test_a_change_of_tags_that_cannot_be_is_refused(
    aflow: Call, datastore: Path, args: list[str], problem: str
) -> None:
    succeeded(datastore, "R1")

    done = aflow("tag", *args)

    assert done.code == 2
    assert problem in done.err


def test_a_sound_datastore_is_found_sound(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")
    failed(datastore, "R2")

    done = aflow("fsck", "--read-data")

    assert (done.code, done.out) == (0, "2 runs checked: all is well\n")


def test_damage_is_listed_by_artifact_and_ends_with_6(aflow: Call, datastore: Path) -> None:
    values = [{"x": bytes([i]) * 100_000} for i in range(3)]
    succeeded(datastore, "R1", values=values)
    blobs = sorted(p for p in (datastore / "blobs").glob("??/*"))
    assert len(blobs) == 3
    blobs[0].unlink()
    blobs[1].write_bytes(b"other")

    done = aflow("fsck")
    as_json = json.loads(aflow("fsck", "--json").out)

    assert done.code == 6
    assert done.lines[-1] == "1 runs checked: 2 things are wrong"
    assert {line.split()[0] for line in done.lines[:-1]} == {"missing", "damaged"}
    assert {damage["kind"] for damage in as_json["damages"]} == {"missing", "damaged"}
    assert all("/work/" in damage["used_by"] for damage in as_json["damages"])


def test_a_journal_that_cannot_be_read_is_told_and_the_rest_checked(
    aflow: Call, datastore: Path
) -> None:
    succeeded(datastore, "R1")
    succeeded(datastore, "R2")
    (datastore / "runs" / "Fan" / "R1" / "journal").write_bytes(b"nonsense")

    done = aflow("fsck")

    assert done.code == 6
    assert done.lines[0].startswith("damaged  Fan/R1: runs/Fan/R1/journal: ")
    assert done.lines[-1] == "2 runs checked: 1 things are wrong"


def test_the_list_of_runs_is_made_again_from_the_journals(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("t",))
    failed(datastore, "R2", began_us=BEGAN_US + 1)
    before = [aflow("list", "--json").out, aflow("status", "R2").out, aflow("dump", "R1/work").out]
    for name in ("metadata.db", "metadata.db-wal", "metadata.db-shm"):
        (datastore / name).unlink(missing_ok=True)

    assert aflow("fsck").lines[:2] == [
        "damaged  Fan/R1: metadata.db: the run is not listed",
        "damaged  Fan/R2: metadata.db: the run is not listed",
    ]
    after = [aflow("list", "--json").out, aflow("status", "R2").out, aflow("dump", "R1/work").out]
    assert after == before, "what was not there has been made by the first who looked"
    (datastore / "metadata.db").write_bytes(b"no database at all" * 100)
    told = aflow("list")
    assert told.code == 6
    assert "hint: `aflow fsck --reindex` makes it again" in told.err

    done = aflow("fsck", "--reindex")

    assert done.lines[1:] == ["2 runs listed again", "2 runs checked: all is well"]
    assert done.lines[0] == f"the damaged database is now {datastore}/metadata.db.damaged"
    after = [aflow("list", "--json").out, aflow("status", "R2").out, aflow("dump", "R1/work").out]
    assert after == before


def test_what_is_not_a_fact_of_a_run_is_none() -> None:
    assert fact_of(4, encode(ExecutorLostRecord(1, "gone"))) is None


def test_doctor_checks_this_machine(aflow: Call, datastore: Path) -> None:
    before = aflow("doctor")
    succeeded(datastore, "R1")
    after = json.loads(aflow("doctor", "--json").out)

    assert before.code == 0
    assert f"{datastore} will be made in" in before.out
    assert not list(datastore.parent.glob(".aflow-doctor*"))
    checks = {finding["check"]: finding["level"] for finding in after["findings"]}
    assert set(checks) == {
        *("python", "datastore", "space", "sqlite", "fork", "files", "processes", "clock")
    }
    assert checks["datastore"] == checks["fork"] == checks["python"] == "ok"


def test_doctor_finds_a_clock_that_was_set_back(
    aflow: Call, datastore: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeeded(datastore, "R1")
    monkeypatch.setattr("time.time_ns", lambda: (BEGAN_US - DAY_US) * 1000)
    back = aflow("doctor").out
    monkeypatch.setattr("time.time_ns", lambda: 0)
    unset = aflow("doctor")

    assert "warning  clock       1 d 0 h behind the latest run" in back
    assert unset.code == 3
    assert "error    clock       1970-01-01T00:00:00.000Z" in unset.out


def test_doctor_finds_a_datastore_that_cannot_be(aflow: Call, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "x").write_text("")

    foreign = aflow("doctor", "--datastore", tmp_path / "foreign")
    elsewhere = aflow("doctor", "--datastore", "gs://bucket")

    assert foreign.code == elsewhere.code == 3
    assert "error    datastore" in foreign.out
    assert "hint: name an empty or new directory" in foreign.out
    assert "there is no gs datastore in this version" in elsewhere.out
