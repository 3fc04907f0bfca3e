"""What is remembered of a directory is a hint that is never trusted too far."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.package.index import RACY_NS, Remembered
from engine.package.tree import Tree, look
from tests.unit.package.trees import PY, plant


@pytest.fixture
def root(tmp_path: Path) -> Path:
    plant(tmp_path, {".gitignore": "b.py\n", "a.py": "1", "b.py": "", "lib/c.py": "3"})
    (tmp_path / "link.py").symlink_to("a.py")
    return tmp_path


def tree(root: Path) -> Tree:
    return look(str(root), PY)


def later(root: Path) -> int:
    """When all of the tree has been old for a while."""
    return max(p.stat().st_ctime_ns for p in root.rglob("*.py")) + RACY_NS + 1


def test_an_unchanged_tree_is_recognized(root: Path) -> None:
    found = tree(root)
    remembered = Remembered.of(found, PY, later(root), b"package")

    back = Remembered.unpack(remembered.pack(), found.root, PY)

    assert back == remembered
    assert back.is_of(tree(root))


@pytest.mark.parametrize(
    "change", ["content", "touched", "replaced", "new", "gone", "link", "mode"]
)
def test_any_change_is_noticed(root: Path, change: str) -> None:
    remembered = Remembered.of(tree(root), PY, later(root), b"package")
    file = root / "a.py"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    if change == "content":
        file.write_text("2")
        os.utime(file, ns=times)  # size and mtime are as before; the ctime tells
    elif change == "touched":
        file.touch()
    elif change == "replaced":
        plant(root, {"x": "1"})
        (root / "x").rename(file)
    elif change == "new":
        plant(root, {"lib/new.py": ""})
    elif change == "gone":
        (root / "lib/c.py").unlink()
    elif change == "link":
        (root / "link.py").unlink()
        (root / "link.py").symlink_to("lib/c.py")
    else:
        file.chmod(0o755)

    assert not remembered.is_of(tree(root))


def test_a_file_written_just_before_the_look_is_read_again(root: Path) -> None:
    found = tree(root)
    newest = max(stamp.ctime_ns for stamp in found.files.values())

    assert not Remembered.of(found, PY, newest + RACY_NS, b"package").is_of(found)
    assert Remembered.of(found, PY, newest + RACY_NS + 1, b"package").is_of(found)


def test_what_was_remembered_of_another_place_is_not_used(root: Path) -> None:
    data = Remembered.of(tree(root), PY, later(root), b"package").pack()

    assert Remembered.unpack(data, "/elsewhere", PY) == Remembered()
    assert Remembered.unpack(data, str(root), (".R",)) == Remembered()


@given(st.data())
def test_damage_is_as_if_nothing_were_remembered(data: st.DataObject) -> None:
    sound = Remembered(root="/r", suffixes=PY, looked_ns=1, package=b"p").pack()
    place = data.draw(st.integers(0, len(sound) - 1))
    damaged = data.draw(
        st.sampled_from([sound[:place], sound[:place] + b"\xc1" + sound[place + 1 :], b""])
    )

    Remembered.unpack(damaged, "/r", PY)  # raises nothing
