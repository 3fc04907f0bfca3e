"""`aflow dump`, and that nothing that reads unpickles."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.commands import VERBS
from engine.cli.complete import answer
from tests.cli.conftest import Call
from tests.unit.client.stored import (
    Stored,
    failed,
    succeeded,
)

songs: list[str] = []


class Canary:
    """A pickle of this sings when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return sing, ()


def sing() -> None:
    songs.append("tweet")


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


def test_s04_no_reading_command_unpickles_anything(
    aflow: Call, datastore: Path, tmp_path: Path
) -> None:
    values = [{"bird": Canary(), "x": 1}]
    succeeded(datastore, "R1", n=1, values=values)
    songs.clear()

    reading = (
        ["list", "--json"],
        ["status", "R1", "--json"],
        ["logs", "R1"],
        ["dump", "R1/work"],
        ["dump", "R1/work/0", "--include", "bird", "--json"],
        ["fsck", "--read-data"],
        ["fsck", "--reindex"],
        ["tag", "list", "R1"],
        ["du", "Fan"],
        ["gc", "--dry-run"],
        ["delete", "R1", "--dry-run"],
        ["package", "info", "R1"],
        ["doctor"],
        ["config", "show"],
        ["completion", "bash"],
        ["version"],
        ["help"],
    )
    for args in reading:
        expected = 5 if args[0] == "package" else 0  # this run has none
        assert aflow(*args).code == expected, args
    loads_code = {
        "run",
        "resume",
        "attach",
        "check",
        "show",
    }  # of the flow, which is the user's own
    asks_others = {"batch", "dev"}  # what is stored, they do not read
    asked = {args[0] for args in reading}
    assert asked == set(VERBS) - loads_code - asks_others, "a new verb is asked here, too"
    for words in (["dump", ""], ["dump", "R1/work/0/"], ["logs", "R"]):
        answer(words)
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
