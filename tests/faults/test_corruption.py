"""R-07: what is damaged is told before it is used. A sample of python -m tests.faults.corruption"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.corruption import KINDS, Count, Place, trial
from tests.faults.mutations import Mutation, flip, flip_unseen, sample

SEED = 20_261_124


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place.make(tmp_path_factory.mktemp("corruption") / "place")
    place.snapshot()
    return place


@pytest.fixture(scope="module")
def found(place: Place) -> list[Mutation]:
    return list(place.mutations())


@pytest.mark.parametrize("kind", KINDS)
def test_r07_what_is_damaged_is_listed_exactly_and_never_read_as_sound(
    place: Place,
    found: list[Mutation],
    kind: str,
    record_property: Callable[[str, object], None],
) -> None:
    count = Count()
    for mutation in sample([m for m in found if m.kind == kind], 5, SEED):
        trial(place, mutation, count, resume=False)
    assert count.problems == []
    record_property("mutations", count.mutations.total())
    assert count.mutations[kind] > 15


@pytest.mark.parametrize("kind", ["blob", "journal"])
def test_r07_a_run_goes_on_from_a_damaged_one_and_does_again_what_is_damaged(
    place: Place,
    found: list[Mutation],
    kind: str,
    record_property: Callable[[str, object], None],
) -> None:
    count = Count()
    for mutation in sample([m for m in found if m.kind == kind and "bit" in m.name], 1, SEED):
        trial(place, mutation, count, resume=True)
    assert count.problems == []
    record_property("mutations", count.mutations.total())
    record_property("resumed", count.resumed)
    assert count.resumed + count.refused >= 2


FLOW = """
import glob
import os
from engine import FlowSpec, step


class Spoiled(FlowSpec):
    @step
    def start(self):
        self.data = bytes(range(256)) * 400
        self.next(self.spoil)

    @step
    def spoil(self):
        {spoil}
        self.next(self.end)

    @step
    def end(self):
        print("READ", len(self.data))
"""
WAYS = {
    "a bit": "flip(Path(path), 50_000)",
    "a bit, unseen": "flip_unseen(Path(path), 50_000)",
    "cut": "os.truncate(path, 99_999)",
    "emptied": "os.truncate(path, 0)",
    "removed": "os.unlink(path)",
}


@pytest.mark.parametrize("way", WAYS)
def test_r07_the_next_step_fails_before_it_sees_a_damaged_value(tmp_path: Path, way: str) -> None:
    spoil = [
        "from pathlib import Path",
        "from tests.faults.mutations import flip, flip_unseen",
        "(path,) = glob.glob('store/blobs/??/*')",
        WAYS[way],
    ]
    (tmp_path / "spoiled.py").write_text(FLOW.format(spoil="\n        ".join(spoil)))
    place = Place(tmp_path)

    code, said = place.call("run", "spoiled.py")

    assert code == 6
    assert "READ 102400" not in said
    assert "error[blob-" in said
    (name,) = {path.name for path in place.store.glob("blobs/??/*")} or {""}
    assert name in said
    assert place.call("fsck")[0] == 6


def test_r07_the_mutations_do_change_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(10))
    before = path.stat()
    flip_unseen(path, 3)
    after = path.stat()
    assert path.read_bytes() == bytes(3) + b"\x08" + bytes(6)
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    flip(path, 3)
    assert path.read_bytes() == bytes(10)
