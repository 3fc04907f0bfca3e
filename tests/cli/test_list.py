"""`aflow list`, and how runs are named."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.unit.client.stored import (
    BEGAN_US,
    Stored,
    failed,
    succeeded,
)

DAY_US = 86_400_000_000


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
    done = aflow("list", "--datastore", "gs://bucket/prefix")

    assert done.code == 3
    assert "there is no gs datastore in this version" in done.err


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
