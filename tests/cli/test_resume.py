"""`aflow resume`: what it says first, and that a dry run says it and no more."""

import hashlib
import json
from pathlib import Path

from tests.cli.conftest import Call
from tests.cli.flows import FAILS, write


def contents(folder: Path) -> dict[str, str]:
    """Every file with a digest of its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def failed(process: Call, folder: Path) -> Path:
    path = write(folder, "fails.py", FAILS)
    assert process("run", path, "--max-workers", "1").code == 1
    return path


def test_a_dry_run_prints_the_plan_and_changes_no_byte(
    process: Call, tmp_path: Path, datastore: Path
) -> None:
    failed(process, tmp_path)
    before = contents(datastore)
    done = process("resume", "--dry-run")
    assert (done.code, done.err) == (0, "")
    run_id = done.lines[0].split("/")[1].split(":")[0]
    assert done.lines == [
        f"Resuming FailsFlow/{run_id}: 2 tasks reused, 3 tasks to run",
        "  start   1 reused",
        "  work    1 reused, 1 to run: it failed (work/1)",
        "  gather  1 to run: it was not done",
        "  end     1 to run: it was not done",
    ]
    assert contents(datastore) == before


def test_a_dry_run_for_programs_is_one_object(process: Call, tmp_path: Path) -> None:
    failed(process, tmp_path)
    done = process("resume", "--dry-run", "--json", "--step", "work")
    (line,) = done.lines
    plan = json.loads(line)
    assert plan["schema"] == "aflow/resume-plan/1"
    assert (plan["flow"], plan["reused"], plan["to_run"]) == ("FailsFlow", 1, 4)
    assert plan["to_run_is_exact"] is True
    work = next(step for step in plan["steps"] if step["step"] == "work")
    assert work["why"] == {"--step asks for it": 2}
    assert work["first_tasks"] == ["work/0", "work/1"]


def test_a_resumed_run_says_its_plan_before_it_begins(process: Call, tmp_path: Path) -> None:
    failed(process, tmp_path)
    planned = process("resume", "--dry-run").lines
    (tmp_path / "mended").touch()
    done = process("resume")
    assert done.code == 0
    assert done.err.splitlines()[: len(planned)] == planned


def test_a_resumed_run_tells_programs_its_plan_first(process: Call, tmp_path: Path) -> None:
    failed(process, tmp_path)
    (tmp_path / "mended").touch()
    done = process("resume", "--json")
    assert done.code == 0
    events = [json.loads(line) for line in done.lines]
    assert [event["event"] for event in events[:2]] == ["resume-planned", "run-began"]
    assert events[0]["origin_run_id"] == events[1]["origin_run_id"]
    assert {event["schema"] for event in events} == {"aflow/run/1"}


def test_after_a_change_of_code_the_new_code_runs_from_where_it_stopped(
    process: Call, tmp_path: Path
) -> None:
    path = failed(process, tmp_path)
    path.write_text(path.read_text().replace('"working"', '"at work on"'))
    plan = process("resume", "--dry-run").lines
    assert plan[-1] == (
        "  note: work has changed since 1 task of it ran, which stand as they are; "
        "`--step work` runs all of it again"
    )
    (tmp_path / "mended").touch()
    done = process("resume")
    assert done.lines == ["[work/1] at work on 1", "[end/0] ended"]
    done = process("resume", "--step", "work", "--max-workers", "1")
    assert done.lines == ["[work/0] at work on 0", "[work/1] at work on 1", "[end/0] ended"]


def test_a_dry_run_without_a_run_says_so(process: Call, tmp_path: Path, datastore: Path) -> None:
    done = process("resume", write(tmp_path, "fails.py", FAILS), "--dry-run")
    assert done.code == 3
    assert "does not exist" in done.err
    assert not datastore.exists()
