"""`aflow gc`, `delete`, `du`."""

import json
import os
import pty
import select
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Call, variables
from tests.unit.client.stored import BEGAN_US, START, Stored, failed, succeeded

DAY_US = 86_400_000_000


def value(seed: int) -> dict[str, object]:
    return {"x": bytes([seed]) * 100_000}


def blobs(datastore: Path) -> list[Path]:
    return sorted((datastore / "blobs").glob("??/*"))


@pytest.fixture
def three(datastore: Path) -> None:
    """R1 and R2 share a blob and have one of their own each; R3, tagged, shares R2's."""
    succeeded(datastore, "R1", values=[value(1), value(2), {}])
    succeeded(datastore, "R2", values=[value(2), value(3), {}], began_us=BEGAN_US + DAY_US)
    succeeded(
        datastore, "R3", n=1, values=[value(3)], began_us=BEGAN_US + 2 * DAY_US, tags=("paper",)
    )


@pytest.mark.usefixtures("three")
def test_du_tells_what_each_run_takes_alone_and_with_others(aflow: Call) -> None:
    by_run = aflow("du", "Fan")
    one = json.loads(aflow("du", "R2", "--json").out)

    assert by_run.code == 0
    assert by_run.lines[0].split() == ["RUN", "TOTAL", "OWN", "SHARED"]
    assert [line.split()[0] for line in by_run.lines[1:]] == ["Fan/R1", "Fan/R2", "Fan/R3"]
    (run,) = one["runs"]
    assert (run["run"], run["shared_bytes"]) == ("Fan/R2", 200_000)
    assert run["own_bytes"] == run["record_bytes"] > 0
    assert run["total_bytes"] == run["own_bytes"] + 200_000
    assert [flow["flow"] for flow in one["flows"]] == ["Fan"]


def test_du_tells_what_each_flow_takes_and_what_nobody_needs(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1", flow="A", n=1, values=[value(1)])
    succeeded(datastore, "R2", flow="B", n=2, values=[value(1), value(2)])
    Stored(datastore, "R0", flow="B").die()
    (datastore / "blobs" / "ab").mkdir()
    (datastore / "blobs" / "ab" / ("ab" * 32)).write_bytes(b"x" * 2048)

    text = aflow("du")
    found = json.loads(aflow("du", "--json").out)

    assert text.lines[0].split() == ["FLOW", "TOTAL", "OWN", "SHARED"]
    assert [line.split()[0] for line in text.lines[1:-1]] == ["A", "B"]
    assert text.lines[-1] == "blobs: 197.3 KiB, of which no run refers to 2.0 KiB"
    assert found["schema"] == "aflow/du/1"
    assert (found["blob_bytes"], found["unreferenced_bytes"]) == (202_048, 2048)
    a, b = found["flows"]
    assert a["own_bytes"] - a["record_bytes"] == 0
    assert b["own_bytes"] - b["record_bytes"] == a["shared_bytes"] == 100_000
    assert [run["run"] for run in found["runs"]] == ["A/R1", "B/R0", "B/R2"]


@pytest.mark.usefixtures("three")
def test_gc_deletes_by_rule_and_removes_what_no_run_needs_then(
    aflow: Call, datastore: Path
) -> None:
    shown = aflow("gc", "--keep-last", "2", "--dry-run")
    untouched = len(blobs(datastore)), aflow("list").lines

    done = aflow("gc", "--keep-last", "2", "--yes")

    assert untouched[0] == 3
    assert len(untouched[1]) == 4
    assert (shown.code, shown.lines[0]) == (0, "would delete  Fan/R1")
    assert shown.lines[1].startswith("would remove 1 blobs, 97.7 KiB; 1 runs, ")
    assert (done.code, done.err, done.lines[0]) == (0, "", "deleted  Fan/R1")
    assert len(blobs(datastore)) == 2
    assert [run["run_id"] for run in json.loads(aflow("list", "--json").out)["runs"]] == [
        *("R3", "R2")
    ]
    assert aflow("fsck", "--read-data").out == "2 runs checked: all is well\n"


@pytest.mark.usefixtures("three", "now")
def test_gc_keeps_what_is_tagged_and_what_is_young(aflow: Call) -> None:
    def going(*args: str) -> list[str]:
        found: list[str] = json.loads(aflow("gc", "--dry-run", "--json", *args).out)["runs"]
        return found

    assert going() == []
    assert going("--older-than", "10s") == ["Fan/R1"]
    assert going("--older-than", "2026-12-01") == ["Fan/R1", "Fan/R2", "Fan/R3"]
    assert going("--older-than", "2026-12-01", "--keep-tag", "paper") == ["Fan/R1", "Fan/R2"]
    assert going("--older-than", "10s", "--keep-last", "3") == []
    assert going("Fan", "--keep-last", "0", "--keep-tag", "paper") == ["Fan/R1", "Fan/R2"]


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (["gc"], 2, "there is no terminal to ask at"),
        (["delete", "R1"], 2, "there is no terminal to ask at"),
        (["gc", "--keep-tag", "t", "--yes"], 2, "nothing says which go"),
        (["gc", "Fam", "--keep-last", "1", "--yes"], 5, "there is no flow 'Fam'"),
        (["gc", "--older-than", "soon", "--yes"], 2, "'soon' is neither a time nor a duration"),
        (["delete", "R9", "--yes"], 5, "there is no run 'R9'"),
        (["delete", "--yes"], 2, "missing argument"),
        (["du", "R9"], 5, "there is no run 'R9'"),
        (["du", "--datastore", "s3://b"], 3, "is no place in S3"),
    ],
)
@pytest.mark.usefixtures("three")
def test_what_cannot_be_removed_is_refused_with_its_reason(
    aflow: Call, datastore: Path, args: list[str], code: int, problem: str
) -> None:
    done = aflow(*args)

    assert (done.code, done.out) == (code, "")
    assert problem in done.err
    assert len(blobs(datastore)) == 3


@pytest.mark.usefixtures("three")
def test_delete_takes_runs_away_with_what_they_alone_needed(aflow: Call, datastore: Path) -> None:
    orphan = datastore / "blobs" / "ab" / ("ab" * 32)
    orphan.parent.mkdir()
    orphan.write_bytes(b"x")

    shown = aflow("delete", "R1", "@latest", "Fan/R1", "--dry-run")
    done = json.loads(aflow("delete", "R1", "@latest", "Fan/R1", "--yes", "--json").out)

    assert shown.lines[:2] == ["would delete  Fan/R1", "would delete  Fan/R3"]
    assert done["schema"] == "aflow/delete/1"
    assert (done["runs"], done["blobs"]) == (["Fan/R1", "Fan/R3"], 1)
    assert (done["complete"], done["dry_run"]) == (True, False)
    assert len(blobs(datastore)) == 3, "two of R2, and the orphan, which is the business of gc"
    assert aflow("list").lines[1].startswith("Fan/R2 ")
    assert not (datastore / "runs" / "Fan" / "R1").exists()


@pytest.mark.usefixtures("three")
def test_a_run_that_is_alive_is_not_deleted_and_keeps_every_blob(
    aflow: Call, datastore: Path
) -> None:
    run = Stored(datastore, "R4", began_us=BEGAN_US - 1)
    try:
        refused = aflow("delete", "R4", "R1", "--yes")
        gc = aflow("gc", "--keep-last", "1", "--yes")
        as_json = json.loads(aflow("gc", "--dry-run", "--grace", "0s", "--json").out)
    finally:
        run.die()

    assert (refused.code, refused.out) == (6, "")
    assert "run Fan/R4 held by" in refused.err
    assert gc.code == 0
    assert gc.lines[:2] == ["deleted  Fan/R1", "deleted  Fan/R2"]
    assert "Fan/R4 is alive, driven by " in gc.err
    assert "blobs were left in their places; later: aflow gc" in gc.err
    assert as_json["alive"] == ["Fan/R4"]
    assert (as_json["complete"], as_json["dry_run"], as_json["blobs"]) == (False, True, 2)
    assert len(blobs(datastore)) == 3
    assert aflow("gc", "--grace", "0s", "--yes").lines == [
        "removed 2 blobs, 195.3 KiB; 0 runs, 0 B"
    ]


@pytest.mark.usefixtures("three")
def test_a_journal_that_cannot_be_read_is_told_by_all_three(aflow: Call, datastore: Path) -> None:
    (datastore / "runs" / "Fan" / "R1" / "journal").write_bytes(b"nonsense")

    gc = aflow("gc", "--keep-last", "2", "--keep-tag", "x", "--grace", "0s", "--yes")
    du = aflow("du")
    failed(datastore, "R0")
    (datastore / "runs" / "Fan" / "R0" / "journal").write_bytes(b"nonsense")
    kept = aflow("gc", "--grace", "0s", "--yes")
    deleted = aflow("delete", "R2", "--yes")

    assert gc.lines[0] == "deleted  Fan/R1"
    assert gc.code == 0, "a damaged run can go"
    assert du.code == 0
    assert (kept.code, deleted.code) == (6, 6)
    assert "Fan/R0 cannot be read, so what it needs is not known" in kept.err
    assert aflow("du").code == 6


@pytest.mark.usefixtures("three")
def test_a_deletion_that_was_killed_half_way_can_be_done_again(
    aflow: Call, datastore: Path
) -> None:
    runs = datastore / "runs" / "Fan"
    (runs / "R1").rename(runs / ".deleted-0123456789abcdef")
    listed = aflow("list").lines

    again = aflow("delete", "R1", "--yes")

    assert any("Fan/R1" in line for line in listed)
    assert (again.code, again.lines[0]) == (0, "deleted  Fan/R1")
    assert sorted(path.name for path in runs.iterdir()) == ["R2", "R3"]
    assert not any("Fan/R1" in line for line in aflow("list").lines)
    assert aflow("gc", "--grace", "0s", "--yes").lines == ["removed 1 blobs, 97.7 KiB; 0 runs, 0 B"]


def test_a_terminal_is_asked_and_no_is_the_default(datastore: Path) -> None:
    for run_id in ("R1", "R2"):
        run = Stored(datastore, run_id)
        run.launch(START)
        run.end("interrupted")
        run.die()

    no_code, no = _typed(datastore, ["delete", "R1"], "\n")
    yes_code, yes = _typed(datastore, ["gc", "--keep-last", "0"], "y\n")

    assert no_code == 1
    assert "would delete  Fan/R1" in no
    assert "Go ahead? [y/N]" in no
    assert "nothing was removed" in no
    assert yes_code == 0
    assert "deleted  Fan/R2" in yes
    assert not (datastore / "runs" / "Fan").exists()


def _typed(datastore: Path, args: Sequence[str], text: str) -> tuple[int, str]:
    """Run a command at a terminal, answer its question; return its exit code and the screen."""
    child, terminal = pty.fork()
    if child == 0:
        program = [sys.executable, "-m", "engine.cli.main", *args]
        os.execve(program[0], program, variables(datastore))
    shown = b""
    try:
        while True:
            ready, _, _ = select.select([terminal], [], [], 30)
            assert ready, shown
            try:
                part = os.read(terminal, 4096)
            except OSError:  # it has ended
                break
            if not part:
                break
            if b"[y/N]" in part and text:
                os.write(terminal, text.encode())
                text = ""
            shown += part
    finally:
        os.close(terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, shown.decode()
