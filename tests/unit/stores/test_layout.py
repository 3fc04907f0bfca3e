"""Where a datastore lies, what may become one, and that no name leads out of it."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import DatastoreError, StoreAccessError, UnsafeNameError
from engine.stores.layout import Layout, create_layout, find, open_layout
from engine.testing.blob_contract import UNSAFE_KEYS
from tests.unit.stores.faulty import FaultyCalls


def test_a_new_datastore_ignores_itself_and_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        layout = create_layout(tmp_path / "new" / ".aflow")
    finally:
        os.umask(old)
    assert (layout.root / ".gitignore").read_text() == "*\n"
    assert (layout.root / "format").read_text() == "aflow datastore 1\n"
    for path in (layout.root, layout.blobs, layout.blobs / "tmp", layout.root / "runs"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert open_layout(layout.root) == create_layout(layout.root) == layout
    assert os.listdir(layout.blobs / "tmp") == []


def test_an_empty_directory_may_become_one(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("")
    create_layout(tmp_path)
    open_layout(tmp_path)


def test_one_whose_making_was_interrupted_is_finished(tmp_path: Path) -> None:
    create_layout(tmp_path / "a")
    (tmp_path / "a" / "format").unlink()
    create_layout(tmp_path / "a")
    open_layout(tmp_path / "a")


@pytest.mark.parametrize("call", range(8))
def test_a_refusal_while_it_is_made_is_told_and_can_be_mended(tmp_path: Path, call: int) -> None:
    with FaultyCalls(call, 28).active(), pytest.raises(StoreAccessError, match="No space left"):
        create_layout(tmp_path / "a")
    create_layout(tmp_path / "a")
    open_layout(tmp_path / "a")


def test_a_foreign_directory_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("work of years")
    for call in (create_layout, open_layout):
        with pytest.raises(DatastoreError, match=r"it holds 'thesis\.tex'") as caught:
            call(tmp_path)
        assert "--datastore" in (caught.value.hint or "")
        assert caught.value.exit_code == 3
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("text", ["", "zip 1\n", "aflow datastore\n", "aflow datastore x", "\xff"])
def test_a_format_that_is_not_ours_is_foreign(tmp_path: Path, text: str) -> None:
    (tmp_path / "format").write_text(text, encoding="latin-1")
    for call in (create_layout, open_layout):
        with pytest.raises(DatastoreError, match="not a datastore"):
            call(tmp_path)


def test_a_later_version_is_refused_with_a_hint(tmp_path: Path) -> None:
    create_layout(tmp_path / "a")
    (tmp_path / "a" / "format").write_text("aflow datastore 2\n")
    with pytest.raises(DatastoreError, match="version 2; this aflow reads 1") as caught:
        open_layout(tmp_path / "a")
    assert "later" in (caught.value.hint or "")


def test_what_is_not_there_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match="does not exist"):
        open_layout(tmp_path / "nothing")
    with pytest.raises(DatastoreError, match="empty directory"):
        open_layout(tmp_path)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        for call in (create_layout, open_layout):
            with pytest.raises(DatastoreError, match="not a directory"):
                call(path)


def test_a_directory_that_forbids_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_layout(tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda *_: False)  # for root every directory is writable
    with pytest.raises(StoreAccessError, match="Permission denied") as caught:
        create_layout(tmp_path / "a")
    assert caught.value.hint is not None


def test_a_read_only_file_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        FaultyCalls(0, 30, ("mkdir", "open")).active(),
        pytest.raises(StoreAccessError, match="Read-only file system") as caught,
    ):
        create_layout(tmp_path / "a")
    assert "--datastore" in (caught.value.hint or "")


def test_the_nearest_datastore_above_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = create_layout(tmp_path / ".aflow").root
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find(below) == outer
    inner = create_layout(tmp_path / "a" / ".aflow").root
    assert find(below) == inner
    assert find(tmp_path) == outer
    monkeypatch.chdir(below)
    assert find(Path()) == inner
    (below / ".aflow").write_text("a file is passed over")
    assert find(below) == inner


def test_there_may_be_none(tmp_path: Path) -> None:
    assert find(tmp_path) is None


def test_a_run_has_its_files_in_one_directory(layout: Layout) -> None:
    folder = layout.create_run("Flow", "R1")
    assert folder == layout.root / "runs" / "Flow" / "R1" == layout.create_run("Flow", "R1")
    assert layout.journal("Flow", "R1") == folder / "journal"
    assert layout.log("Flow", "R1") == folder / "log"
    assert layout.lock("Flow", "R1") == folder / "lock"
    assert layout.metadata == layout.root / "metadata.db"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_flows_and_runs_are_listed_by_name(layout: Layout) -> None:
    assert layout.flows() == []
    assert layout.run_ids("Flow") == []
    for flow, run_id in (("B", "2"), ("A", "1"), ("B", "1")):
        layout.create_run(flow, run_id)
    (layout.root / "runs" / "not safe!").mkdir()
    (layout.root / "runs" / "a_file").touch()
    assert layout.flows() == ["A", "B"]
    assert layout.run_ids("B") == ["1", "2"]
    with FaultyCalls(0, 13, ("scandir",)).active(), pytest.raises(StoreAccessError):
        layout.flows()


names = st.text(max_size=140) | st.lists(
    st.sampled_from(
        ["..", ".", "/", "\\", "%2e", "%252e", "\0", "\n", "~", "a", "\u2024", "\uff0f"]
    )
).map("".join)


@given(names)
@example("..")
@example("a..b")
@example("CON")
def test_no_name_leads_out_of_the_datastore(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    layout = Layout(tmp_path_factory.getbasetemp() / "never-made")
    for flow, run_id in ((name, "R"), ("F", name)):
        try:
            path = layout.run(flow, run_id)
        except UnsafeNameError:
            continue
        assert path.parent.parent.parent == layout.root
        assert os.path.normpath(path) == str(path)
        assert path.parts[-2:] == (flow, run_id)


@pytest.mark.parametrize("name", UNSAFE_KEYS)
def test_unsafe_names_are_refused(layout: Layout, name: str) -> None:
    for call in (layout.run, layout.create_run, layout.journal, layout.lock, layout.log):
        with pytest.raises(UnsafeNameError):
            call("F", name)
        with pytest.raises(UnsafeNameError):
            call(name, "R")
    with pytest.raises(UnsafeNameError):
        layout.run_ids(name)


def test_a_link_that_leads_out_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (layout.root / "runs" / "F").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeNameError, match="leads out"):
        layout.create_run("F", "R")
    assert os.listdir(tmp_path / "outside") == []


def test_a_run_that_cannot_be_made_is_told(layout: Layout) -> None:
    with FaultyCalls(0, 28, ("mkdir",)).active(), pytest.raises(StoreAccessError, match="create"):
        layout.create_run("F", "R")
