"""The verbs that read: list, status, logs, dump, tag, fsck, doctor, completion."""

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.commands import VERBS
from engine.cli.complete import answer
from engine.cli.fsck import fact_of
from engine.cli.logs import POLL_S
from engine.flow.graph import Transition
from engine.scheduler.journal import ExecutorLostRecord, encode
from tests.cli.conftest import Call, variables
from tests.unit.client.stored import (
    BEGAN_US,
    END,
    START,
    Stored,
    failed,
    succeeded,
    work,
)

DAY_US = 86_400_000_000


songs: list[str] = []


class Canary:
    """A pickle of this sings when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return sing, ()


def sing() -> None:
    songs.append("tweet")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after the runs of these tests began."""
    monkeypatch.setattr("time.time_ns", lambda: (BEGAN_US + 3_600_000_000) * 1000)


# -- list -----------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first(aflow: Call, datastore: Path, now: None) -> None:
    succeeded(datastore, "R1", tags=("good", "big"))
    failed(datastore, "R2", began_us=BEGAN_US + 60_000_000)

    done = aflow("list")

    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "RUN     STATUS     BEGAN       TOOK   USER  TAGS\n"
        "Fan/R2  failed     59 min ago  3.0 s  ada\n"
        "Fan/R1  succeeded  1 h ago     6.0 s  ada   good, big\n"
    )


def test_runs_are_chosen_by_flow_status_time_and_tag(
    aflow: Call, datastore: Path, now: None
) -> None:
    succeeded(datastore, "R1", tags=("good",), began_us=BEGAN_US - 3 * DAY_US)
    failed(datastore, "R2")
    succeeded(datastore, "R3", flow="Other", began_us=BEGAN_US + 1)
    dead = Stored(datastore, "R4", began_us=BEGAN_US + 2)
    dead.die()

    def ids(*args: str) -> list[str]:
        found = json.loads(aflow("list", "--json", *args).out)["runs"]
        return [run["run_id"] for run in found]

    assert ids() == ["R4", "R3", "R2", "R1"]
    assert ids("Fan") == ["R4", "R2", "R1"]
    assert ids("--status", "failed") == ["R2"]
    assert ids("--status", "interrupted") == ["R4"]
    assert ids("--status", "running") == []
    assert ids("--since", "2d") == ["R4", "R3", "R2"]
    assert ids("--since", "2026-07-25T17:20:00Z") == ["R4", "R3", "R2"]
    assert ids("--tag", "good") == ["R1"]
    assert ids("--limit", "2") == ["R4", "R3"]
    assert ids("-n", "0") == ["R4", "R3", "R2", "R1"]


def test_a_list_that_is_cut_says_so(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")
    succeeded(datastore, "R2")

    done = aflow("list", "--limit", "1")

    assert len(done.lines) == 2
    assert done.err == "more than 1: --limit 0 lists all\n"


def test_a_run_in_json_has_these_fields(aflow: Call, datastore: Path) -> None:
    failed(datastore, "R1", tags=("t",))

    listed = json.loads(aflow("list", "--json").out)

    assert listed == {
        "schema": "aflow/list/1",
        "runs": [
            {
                "flow": "Fan",
                "run_id": "R1",
                "status": "failed",
                "created_at": "2026-07-25T17:20:00.000Z",
                "ended_at": "2026-07-25T17:20:03.000Z",
                "user": "ada",
                "tags": ["t"],
                "system_tags": ["user:ada", "runtime:dev"],
                "origin_run_id": None,
                "reason": "work/1 failed",
            }
        ],
    }


def test_flows_are_listed_with_their_latest_run(aflow: Call, datastore: Path, now: None) -> None:
    succeeded(datastore, "R1")
    failed(datastore, "R2", began_us=BEGAN_US + 1)
    succeeded(datastore, "R3", flow="Other")

    assert aflow("list", "--flows").lines == [
        "FLOW   LATEST RUN  STATUS     BEGAN",
        "Fan    R2          failed     59 min ago",
        "Other  R3          succeeded  1 h ago",
    ]
    flows = json.loads(aflow("list", "--flows", "--json").out)["flows"]
    assert [flow["flow"] for flow in flows] == ["Fan", "Other"]


def test_before_the_first_run_there_is_nothing_to_list(
    aflow: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AFLOW_DATASTORE")

    done, as_json = aflow("list"), aflow("list", "--json")

    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("no runs yet: ")
    assert json.loads(as_json.out)["runs"] == []


def test_a_flow_that_is_not_there_is_not_found(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")

    done = aflow("list", "Fam")

    assert done.code == 5
    assert "error[not-found]: there is no flow 'Fam'" in done.err
    assert "did you mean 'Fan'?" in done.err
    assert "`aflow list --flows` shows the flows" in aflow("list", "Zzz").err


def test_a_time_that_is_none_is_refused(aflow: Call, datastore: Path) -> None:
    done = aflow("list", "--since", "yesterday")

    assert done.code == 2
    assert "'yesterday' is neither a time nor a duration" in done.err


def test_a_directory_of_somebody_elses_is_not_read(aflow: Call, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")

    done = aflow("list", "--datastore", tmp_path / "foreign")

    assert done.code == 3
    assert "error[datastore]" in done.err
    assert "holds 'thesis.tex'" in done.err


def test_another_kind_of_datastore_is_refused(aflow: Call) -> None:
    done = aflow("list", "--datastore", "s3://bucket/prefix")

    assert done.code == 3
    assert "there is no s3 datastore in this version" in done.err


# -- naming a run ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("01JAAAAAAAAAAAA1", "Fan/01JAAAAAAAAAAAA1"),
        ("01jaaaaaaaaaaaa1", "Fan/01JAAAAAAAAAAAA1"),
        ("Fan/01JAAAAAAAAAAAA1", "Fan/01JAAAAAAAAAAAA1"),
        ("01JB", "Other/01JBBBBBBBBBBBB3"),
        ("Fan/01JA", "Fan/01JAAAAAAAAAAAA1"),
        ("@latest", "Other/01JBBBBBBBBBBBB3"),
        ("Fan/@latest", "Fan/01JCCCCCCCCCCCC2"),
        ("@latest-failed", "Fan/01JCCCCCCCCCCCC2"),
        ("-1", "Other/01JBBBBBBBBBBBB3"),
        ("-3", "Fan/01JAAAAAAAAAAAA1"),
        ("Fan/-2", "Fan/01JAAAAAAAAAAAA1"),
    ],
)
def test_a_run_has_many_names(aflow: Call, datastore: Path, text: str, run: str) -> None:
    _three_runs(datastore)

    done = aflow("status", text)

    assert (done.code, done.err) == (0, "")
    assert done.lines[0].split()[0] == run


def _three_runs(datastore: Path) -> None:
    succeeded(datastore, "01JAAAAAAAAAAAA1")
    failed(datastore, "01JCCCCCCCCCCCC2", began_us=BEGAN_US + 1)
    succeeded(datastore, "01JBBBBBBBBBBBB3", flow="Other", began_us=BEGAN_US + 2)


@pytest.mark.parametrize(
    ("text", "code", "problem"),
    [
        ("01J", 2, "'01J' is the start of 3 run ids: Other/01JBBBBBBBBBBBB3, Fan/01JCC"),
        ("01JZ", 5, "there is no run '01JZ'"),
        ("01JAAAAAAAAAAAA9", 5, "hint: did you mean 01JAAAAAAAAAAAA1?"),
        ("Fan", 5, "its latest run is Fan/@latest"),
        ("-9", 5, "there is no run -9"),
        ("Fan/-9", 5, "there is no run -9 of Fan"),
        ("Other/@latest-failed", 5, "there is no run @latest-failed of Other"),
        ("../../etc", 2, "error[name]: run '..' is not a safe name"),
        ("a\nb", 2, "error[name]"),
        ("@latest/work", 2, "a run is wanted"),
        ("Fan/a/b/c/d/e", 2, "too many parts"),
    ],
)
def test_a_name_that_no_run_has_says_what_is_near(
    aflow: Call, datastore: Path, text: str, code: int, problem: str
) -> None:
    _three_runs(datastore)

    done = aflow("status", text)

    assert (done.code, done.out) == (code, "")
    assert problem in done.err


# -- status ---------------------------------------------------------------------------------------


def test_a_failed_run_tells_its_steps_and_its_first_failure(aflow: Call, datastore: Path) -> None:
    failed(datastore, "R1", tags=("a", "b"), origin_run_id="R0")

    done = aflow("status", "R1")

    assert done.code == 0
    assert done.out == (
        "Fan/R1  failed in 3.0 s\n"
        "  began 2026-07-25 17:20:00 by ada on here\n"
        "  resumed R0\n"
        "  tags: a, b\n"
        "\n"
        "STEP   DONE  RUNNING  FAILED  REUSED  TASK TIME  SLOWEST\n"
        "start  1                              1.0 s      1.0 s\n"
        "work   1              1               1.5 s      1.0 s\n"
        "\n"
        "failed first: work/1\n"
        "error[task-failed]: ValueError: no such luck\n"
        "  flow.py:12  raise ValueError('no such luck')\n"
        "  | one\n"
        "  | two\n"
        "  run:  Fan/R1   resume: aflow resume R1\n"
    )


def test_an_interrupted_run_says_how_to_resume_it(aflow: Call, datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(START)
    run.end("interrupted", reason="SIGTERM")
    run.die()

    done = aflow("status", "R1", "--exit-code")

    assert done.code == 143
    assert "reason: SIGTERM" in done.out
    assert done.lines[-1] == "resume with: aflow resume R1"


def test_a_run_under_way_shows_what_runs(aflow: Call, datastore: Path, now: None) -> None:
    run = Stored(datastore, "R1")
    run.succeed(START, {}, goes=Transition(("work",), 2), reused=True)
    run.launch(work(0, 2))

    done = aflow("status")
    as_json = json.loads(aflow("status", "--json").out)
    run.die()

    assert done.lines[0] == "Fan/R1  running in 1 h 0 min"
    assert done.lines[4:] == [
        "start  1                      1       0 ms       0 ms",
        "work   0     1                        0 ms       0 ms",
    ]
    assert (as_json["status"], as_json["exit_code"]) == ("running", None)


@pytest.mark.parametrize(
    ("make", "code"), [(succeeded, 0), (failed, 1)], ids=["succeeded", "failed"]
)
def test_status_can_end_with_the_exit_code_of_the_run(
    aflow: Call, datastore: Path, make: Callable[..., str], code: int
) -> None:
    make(datastore, "R1")

    assert aflow("status", "R1", "--exit-code").code == code
    told = json.loads(aflow("status", "R1", "--json").out)
    assert told["exit_code"] == code
    assert told["failed_task"] == ("work/1" if code else None)


# -- logs -----------------------------------------------------------------------------------------


def test_logs_begin_with_the_task(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")

    done = aflow("logs", "R1")

    assert done.lines == [
        "[work/0] working on 0",
        "[work/1] working on 1",
        "[work/2] working on 2",
        "[join/0] careful",
        "[end/0] done",
        "[end/0] bye",
    ]


@pytest.mark.parametrize(
    ("args", "texts"),
    [
        (["R1/work"], ["working on 0", "working on 1", "working on 2"]),
        (["R1/work/1"], ["working on 1"]),
        (["Fan/R1/end"], ["done", "bye"]),
        (["R1", "--step", "join", "--step", "end"], ["careful", "done", "bye"]),
        (["R1", "--task", "work/2", "--task", "end/0"], ["working on 2", "done", "bye"]),
        (["R1", "--stream", "err"], ["careful"]),
        (["R1", "--stderr"], ["careful"]),
        (["R1/end", "--stdout"], ["done", "bye"]),
        (["R1/end", "--stdout", "--stderr"], ["done", "bye"]),
        (["R1/end", "--both"], ["done", "bye"]),
        (["R1", "--grep", "^b|ful$"], ["careful", "bye"]),
        (["R1", "--tail", "2"], ["done", "bye"]),
        (["R1", "-n", "1", "--grep", "working"], ["working on 2"]),
        (["R1", "--since", "2026-07-25T17:20:06Z"], ["bye"]),
        (["R1", "--until", "2026-07-25T17:20:02Z"], ["working on 0"]),
        (["R1", "--attempt", "1"], []),
        (["R1", "--failed"], []),
        (["-1/end"], ["done", "bye"]),
    ],
)
def test_lines_are_chosen(aflow: Call, datastore: Path, args: list[str], texts: list[str]) -> None:
    succeeded(datastore, "R1")

    done = aflow("logs", "--no-log-prefix", *args)

    assert (done.code, done.err) == (0, "")
    assert done.lines == texts


def test_logs_of_failed_tasks_hold_every_attempt(aflow: Call, datastore: Path) -> None:
    failed(datastore, "R1")

    assert aflow("logs", "R1", "--failed").lines == ["[work/1] first try", "[work/1] second try"]
    assert aflow("logs", "R1", "--failed", "--task", "work/0").lines == []
    assert aflow("logs", "R1", "--failed", "--attempt", "1").lines == ["[work/1] second try"]


def test_lines_carry_their_times_when_asked(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")

    assert aflow("logs", "R1/end", "-t").lines == [
        "2026-07-25 17:20:05.000 [end/0] done",
        "2026-07-25 17:20:06.000 [end/0] bye",
    ]


def test_lines_in_json_are_raw_and_escaped_by_json(aflow: Call, datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(START)
    run.say(START, "stderr", "\x1b[2Jgone")
    run.die()

    assert json.loads(aflow("logs", "R1", "--json").out) == {
        "schema": "aflow/log/1",
        "at": "2026-07-25T17:20:00.000Z",
        "step": "start",
        "task_id": "0",
        "attempt": 0,
        "stream": "stderr",
        "text": "\x1b[2Jgone",
    }


def test_nothing_a_task_printed_can_drive_the_terminal(aflow: Call, datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(START)
    run.say(
        START, "stdout", "\x1b]0;owned\x07a\x1b[2J", "x\r[end/0] fake", "\x1b[31mred", "b\u202ec"
    )
    run.die()

    plain = aflow("logs", "R1").lines
    color = aflow("logs", "R1", "--color", "always").lines

    assert plain == [
        "[start/0] a",
        "[start/0] [end/0] fake",
        "[start/0] red",
        "[start/0] b\\u202ec",
    ]
    assert color[2].endswith("\x1b[0m \x1b[31mred\x1b[0m")


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (["R1/nope"], 5, "there is no step 'nope' that has begun"),
        (["R1", "--step", "nope"], 5, "hint: it has start, work, join, end"),
        (["R1", "--task", "work/9"], 5, "there is no task 'work/9'"),
        (["R1", "--task", "work"], 5, "a task is STEP/TASK"),
        (["R1/end/0/total"], 2, "an artifact has no log"),
        (["R1", "--grep", "("], 2, "is no regular expression"),
        (["R1", "--stream", "in"], 2, "'in' is not one of 'out', 'err'"),
    ],
)
def test_a_log_that_is_not_there_is_an_error(
    aflow: Call, datastore: Path, args: list[str], code: int, problem: str
) -> None:
    succeeded(datastore, "R1")

    done = aflow("logs", *args)

    assert done.code == code
    assert problem in done.err


def test_following_ends_with_the_run_and_its_exit_code(aflow: Call, datastore: Path) -> None:
    failed(datastore, "R1")

    done = aflow("logs", "-f", "R1", "--tail", "1")

    assert done.code == 1
    assert done.lines == ["[work/1] second try"]


def test_following_shows_what_is_printed_meanwhile(aflow: Call, datastore: Path) -> None:
    run = Stored(datastore, "R1")
    run.launch(END)
    run.say(END, "stdout", "early")

    def later() -> None:
        run.say(END, "stdout", "late")
        run.end("succeeded")
        run.die()

    timer = threading.Timer(3 * POLL_S, later)
    timer.start()
    done = aflow("logs", "--follow", "R1")
    timer.join()

    assert (done.code, done.lines) == (0, ["[end/0] early", "[end/0] late"])


# -- dump -----------------------------------------------------------------------------------------


def test_dump_shows_what_the_last_step_left(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")

    assert aflow("dump", "R1").lines == ["Fan/R1/end/0", "  total = 6", "  name = 'fan'"]
    assert aflow("dump").lines == aflow("dump", "@latest/end").lines


def test_dump_shows_each_task_of_a_step(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1", n=2)

    assert aflow("dump", "R1/work").lines == [
        "Fan/R1/work/0",
        "  x = 0",
        "Fan/R1/work/1",
        "  x = 2",
    ]
    assert aflow("dump", "R1/work/1", "--private").lines[1:] == ["  x = 2", "  _hidden = 1"]
    assert aflow("dump", "R1/work/1", "--include", "_hidden").lines[1:] == ["  _hidden = 1"]


def test_one_value_is_printed_alone(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")

    assert aflow("dump", "R1/end/0/name").out == "fan\n"
    assert aflow("dump", "R1/start/0/items").out == "[0, 1, 2]\n"


def test_a_large_value_is_shown_by_its_type(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1", n=1, values=[{"x": "y" * 5000, "z": 1}])

    by_type = aflow("dump", "R1/work/0").lines
    asked = aflow("dump", "R1/work/0", "--max-value-size", "10000", "--include", "x").lines
    alone = aflow("dump", "R1/work/0/x")

    assert by_type == ["Fan/R1/work/0", "  x = <str, 4.9 KiB>", "  z = 1"]
    assert "yyyy" in asked[1]
    assert alone.out == "y" * 5000 + "\n"


def test_no_reading_command_unpickles_anything(
    aflow: Call, datastore: Path, tmp_path: Path
) -> None:
    values = [{"bird": Canary(), "x": 1}]
    succeeded(datastore, "R1", n=1, values=values)
    songs.clear()

    for args in (
        ["list", "--json"],
        ["status", "R1", "--json"],
        ["logs", "R1"],
        ["dump", "R1/work"],
        ["dump", "R1/work/0", "--include", "bird", "--json"],
        ["fsck", "--read-data"],
        ["fsck", "--reindex"],
        ["tag", "list", "R1"],
        ["doctor"],
    ):
        assert aflow(*args).code == 0, args
    shown = aflow("dump", "R1/work/0/bird")
    refused = aflow("dump", "R1/work/0", "--file", tmp_path / "out")

    assert songs == []
    assert "Canary object" in shown.out
    assert shown.err == "a pickle, shown as it was when saved: --unpickle loads it\n"
    assert refused.code == 2
    assert "artifact 'bird'" in refused.err
    aflow("dump", "R1/work/0/bird", "--unpickle")
    assert songs == ["tweet"]


def test_artifacts_go_to_a_file_as_metaflow_writes_them(
    aflow: Call, datastore: Path, tmp_path: Path
) -> None:
    succeeded(datastore, "R1", n=2)
    out = tmp_path / "out.pickle"

    done = aflow("dump", "R1/work", "--file", out)
    nowhere = aflow("dump", "R1/work", "--file", tmp_path / "no" / "out")

    assert (done.code, done.out) == (0, "")
    assert done.err == f"{out}: artifacts of 2 tasks\n"
    assert pickle.loads(out.read_bytes()) == {"Fan/R1/work/0": {"x": 0}, "Fan/R1/work/1": {"x": 2}}
    assert nowhere.code == 6


def test_artifacts_in_json_have_these_fields(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1", n=1, values=[{"x": 1, "y": {1, 2}}])

    (task,) = json.loads(aflow("dump", "R1/work/0", "--json").out)["tasks"]

    assert task["task"] == "Fan/R1/work/0"
    x, y = task["artifacts"]["x"], task["artifacts"]["y"]
    assert (x["type"], x["size_bytes"], x["serializer"], x["value"]) == ("int", 1, "json", 1)
    assert (y["serializer"], y["preview"], "value" in y) == ("pickle", "{1, 2}", False)


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("R1/nope", "there is no step 'nope' in Fan/R1"),
        ("R1/work/9", "there is no task work/9 in Fan/R1"),
        ("R1/work/0/nope", "Fan/R1/work/0 has no artifact 'nope'"),
        ("R1/work/1", "nothing that is named here has left artifacts"),
        ("R2", "nothing that is named here has left artifacts"),
    ],
)
def test_what_left_nothing_is_not_found(
    aflow: Call, datastore: Path, where: str, problem: str
) -> None:
    failed(datastore, "R1")
    Stored(datastore, "R2").die()

    done = aflow("dump", where)

    assert done.code == 5
    assert problem in done.err


# -- tag ------------------------------------------------------------------------------------------


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


# -- fsck and doctor ------------------------------------------------------------------------------


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
    assert done.lines[0].startswith("unreadable  Fan/R1: ")
    assert done.lines[-1] == "2 runs checked: 1 things are wrong"


def test_the_list_of_runs_is_made_again_from_the_journals(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1", tags=("t",))
    failed(datastore, "R2", began_us=BEGAN_US + 1)
    before = [aflow("list", "--json").out, aflow("status", "R2").out, aflow("dump", "R1/work").out]
    for name in ("metadata.db", "metadata.db-wal", "metadata.db-shm"):
        (datastore / name).unlink(missing_ok=True)
    assert json.loads(aflow("list", "--json").out)["runs"] == []

    done = aflow("fsck", "--reindex")

    assert done.lines == ["2 runs listed again", "2 runs checked: all is well"]
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
    elsewhere = aflow("doctor", "--datastore", "s3://bucket")

    assert foreign.code == elsewhere.code == 3
    assert "error    datastore" in foreign.out
    assert "hint: name an empty or new directory" in foreign.out
    assert "error    datastore   s3://bucket" in elsewhere.out


# -- completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(aflow: Call, shell: str) -> None:
    assert "aflow __complete" in aflow("completion", shell).out


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("aflow res", ["resume"]),
        ("aflow logs @", ["latest", "latest-failed"]),
        ("aflow logs @lat", ["latest", "latest-failed"]),
        ("aflow dump R1/e", ["R1/end"]),
        ("aflow dump R1/end/", ["R1/end/0"]),
        ("aflow completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_bash_is_given_what_follows_the_last_break_of_a_word(
    aflow: Call, datastore: Path, line: str, replies: list[str]
) -> None:
    succeeded(datastore, "R1")
    script = (
        f'aflow() {{ {sys.executable} -m engine.cli.main "$@"; }}\n'
        f"{aflow('completion', 'bash').out}\n"
        f"COMP_LINE='{line}' COMP_POINT={len(line)}\n_aflow\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )

    done = subprocess.run(
        ["bash", "-c", script], env=variables(datastore), capture_output=True, text=True
    )

    assert (done.stdout.splitlines(), done.stderr) == (replies, "")


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (["re"], ["resume"]),
        ([""], list(VERBS)),
        (["--data", "lo"], ["logs"]),
        (["logs", "@"], ["@latest", "@latest-failed"]),
        (["status", "R"], ["R2", "R1"]),
        (["dump", "R1/"], ["R1/start", "R1/work", "R1/join", "R1/end"]),
        (["dump", "R1/work/"], ["R1/work/0", "R1/work/1", "R1/work/2"]),
        (["dump", "@latest/w"], ["@latest/work"]),
        (["tag", "re"], ["remove", "replace"]),
        (["tag", "add", "R1"], ["R1"]),
        (["tag", "add", "R1", "x"], []),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["config", "s"], ["show"]),
        (["help", "exit"], ["exit-codes"]),
        (["list", "--st"], ["--status"]),
        (["--ver"], ["--version"]),
        (["dump", "nope/"], []),
        (["run", "fl"], []),
    ],
)
def test_words_are_completed(
    datastore: Path, capsys: pytest.CaptureFixture[str], words: list[str], offers: list[str]
) -> None:
    succeeded(datastore, "R1")
    succeeded(datastore, "R2", began_us=BEGAN_US + 1)
    capsys.readouterr()

    assert answer(words) == 0
    assert capsys.readouterr().out.splitlines() == offers


def test_completion_says_nothing_where_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFLOW_DATASTORE", str(tmp_path / "nowhere"))

    assert answer(["dump", "R"]) == answer(["dump", "R/"]) == answer([]) == 0
    assert "error" not in capsys.readouterr().out
