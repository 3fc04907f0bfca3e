"""What a killed writer left is swept away; what a living one writes is not."""

import os
import signal
from pathlib import Path

import pytest

from engine.stores.directory import BlobDirectory
from engine.stores.layout import Layout
from engine.stores.temporary import new_file, sweep
from tests.unit.stores.conftest import blob_files


def killed_while_writing(folder: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with new_file(str(folder)) as (fd, _):
            os.write(fd, b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    killed_while_writing(tmp_path)
    killed_while_writing(tmp_path)
    assert len(os.listdir(tmp_path)) == 2
    assert sweep(str(tmp_path)) == 2
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_being_written_stays(tmp_path: Path) -> None:
    with new_file(str(tmp_path)) as (_, path):
        assert sweep(str(tmp_path)) == 0
        assert os.path.exists(path)


def test_a_file_of_another_process_that_is_being_written_stays(tmp_path: Path) -> None:
    (told, tells), (may_end, ends) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ends)
        with new_file(str(tmp_path)):
            os.write(tells, b"x")
            os.read(may_end, 1)
        os._exit(0)
    os.read(told, 1)
    assert sweep(str(tmp_path)) == 0
    assert len(os.listdir(tmp_path)) == 1
    for fd in (told, tells, may_end, ends):
        os.close(fd)
    os.waitpid(pid, 0)
    assert os.listdir(tmp_path) == []


def test_a_file_swept_before_its_writer_had_locked_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[int] = []
    real = os.open

    def opened(*args: object) -> int:
        fd = real(*args)  # type: ignore[arg-type]  # os.open's own arguments
        if not swept and args[0] != str(tmp_path) and "-" in os.path.basename(str(args[0])):
            swept.append(-1)  # the sweep opens files, too
            swept[0] = sweep(str(tmp_path))
        return fd

    monkeypatch.setattr(os, "open", opened)
    with new_file(str(tmp_path)) as (fd, path):
        assert os.fstat(fd).st_ino == os.stat(path).st_ino
    assert swept == [1]


def test_what_cannot_be_removed_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert sweep(str(tmp_path)) == 0
    assert sweep(str(tmp_path / "nowhere")) == 0
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]


def test_a_sweep_takes_no_blob(layout: Layout, directory: BlobDirectory) -> None:
    digest, _ = directory.write([b"kept" * 1000])
    killed_while_writing(layout.blobs / "tmp")
    assert layout.sweep() == 1
    assert directory.read(digest) == b"kept" * 1000
    assert len(blob_files(layout)) == 1
