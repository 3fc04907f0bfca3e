"""Files that a run includes: read once as it begins, kept as they were, refused with a reason."""

import asyncio
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import FlowSpec, client
from engine.config import Config
from engine.errors import ParameterError, StoreAccessError
from engine.flow.includes import IncludedFile
from engine.runtime import Engine
from engine.runtime.inclusion import save_parameters
from engine.runtime.stores import open_stores
from engine.stores.artifacts import CONTENT_IN_MEMORY_MAX, load_entry
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Entry
from engine.worker.loader import load
from tests.unit.package.trees import plant

FLOW = """
from engine import FlowSpec, IncludeFile, step


class Reads(FlowSpec):
    table = IncludeFile("table", default="table.csv")
    image = IncludeFile("image", is_text=False)
    limits = IncludeFile("limits", parser="json.loads")

    @step
    def start(self):
        self.rows = self.table.splitlines()
        self.next(self.end)

    @step
    def end(self):
        self.seen = (type(self.image).__name__, self.limits)
"""


@pytest.fixture
def blobs(datastore: Path) -> BlobDirectory:
    return open_stores(Config(datastore=str(datastore)), create=True).blobs


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FlowSpec]:
    plant(tmp_path, {"reads.py": FLOW, "table.csv": "a,b\n1,2\n", "limits.json": '{"top": 3}'})
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n")
    monkeypatch.chdir(tmp_path)
    return load(str(tmp_path / "reads.py"))


def included(path: Path, encoding: str | None = "utf-8", parser: Any = None) -> IncludedFile:
    return IncludedFile("x", str(path), encoding, parser, "flow.py:3")


def save(blobs: BlobDirectory, file: IncludedFile) -> Entry:
    return save_parameters({"x": file}, blobs)["x"]


async def test_a_run_keeps_the_content_of_the_files_it_was_given(
    reads: type[FlowSpec], datastore: Path
) -> None:
    done = await Engine.run(reads, params={"image": Path("image.png"), "limits": "limits.json"})
    os.unlink("table.csv")
    os.unlink("limits.json")

    assert (done.data.rows, done.data.seen) == (["a,b", "1,2"], ("bytes", {"top": 3}))
    run = await asyncio.to_thread(lambda: client.Run(f"Reads/{done.run_id}").data)
    assert run.table == "a,b\n1,2\n"
    assert run.image == b"\x89PNG\r\n"
    assert run.limits == {"top": 3}
    again = await Engine.resume(reads, done.run_id, resume_step="end")
    assert (again.data.table, again.data.seen) == ("a,b\n1,2\n", ("bytes", {"top": 3}))


async def test_every_file_that_cannot_be_included_is_told_before_a_run_begins(
    reads: type[FlowSpec], datastore: Path
) -> None:
    with pytest.raises(ParameterError) as caught:
        await Engine.run(reads, params={"image": "nowhere.png", "limits": "table.csv"})

    error = caught.value
    assert error.message == (
        "parameter 'image': file 'nowhere.png' cannot be read: No such file or directory"
    )
    assert error.hint == f"the path is relative to {os.getcwd()}"
    assert 'image = IncludeFile("image", is_text=False)' in (error.where or "")
    (other,) = error.others
    assert other.message.startswith("the parser of parameter 'limits' raised JSONDecodeError: ")
    assert await asyncio.to_thread(lambda: list(datastore.glob("runs/*"))) == []


@pytest.mark.parametrize("size", [0, 10, 1025, 5000, CONTENT_IN_MEMORY_MAX + 1])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", None])
def test_a_file_of_any_size_comes_back(
    tmp_path: Path, blobs: BlobDirectory, size: int, encoding: str | None
) -> None:
    if size > 5000 and encoding == "utf-16":
        return
    text = ("é" * size)[:size] if size <= 5000 else "é" * (size // 2 + 1)
    data = text.encode(encoding or "utf-8")
    (tmp_path / "file").write_bytes(data)

    entry = save(blobs, included(tmp_path / "file", encoding))

    value = load_entry(entry, blobs, allow_pickle=False)
    assert value == (text if encoding else data)
    assert (entry.size_bytes, entry.type) == (len(data), "str" if encoding else "bytes")
    assert (entry.inline is None) == (len(data) > 1024)


def test_equal_files_are_one_blob_however_they_are_read(
    tmp_path: Path, blobs: BlobDirectory
) -> None:
    data = os.urandom(CONTENT_IN_MEMORY_MAX + 1)
    (tmp_path / "a").write_bytes(data)

    entry = save(blobs, included(tmp_path / "a", None))

    assert entry.digest == blobs.write([data])[0]
    assert len(list(Path(blobs.root).glob("??/*"))) == 1


@pytest.mark.parametrize(
    ("data", "encoding", "place"),
    [
        (b"abc\xff", "utf-8", 3),
        (b"x" * ((1 << 20) - 1) + "é".encode()[:1] + b"z", "utf-8", (1 << 20) - 1),
        (b"abc\xc3", "utf-8", 3),
        (b"a\0b\0c", "utf-16-le", 4),
        (b"\xe9", "ascii", 0),
    ],
)
def test_a_text_that_is_not_in_its_encoding_is_refused_with_the_place(
    tmp_path: Path, blobs: BlobDirectory, data: bytes, encoding: str, place: int
) -> None:
    (tmp_path / "file").write_bytes(data)

    with pytest.raises(ParameterError, match=rf"is not {encoding} at byte {place:,}$") as caught:
        save(blobs, included(tmp_path / "file", encoding))

    assert "is_text=False" in (caught.value.hint or "")
    assert not list(Path(blobs.root).glob("*/*"))


def test_what_is_no_regular_file_is_refused(tmp_path: Path, blobs: BlobDirectory) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path, problem in (
        (tmp_path / "pipe", "is not a regular file"),
        (Path("/dev/null"), "is not a regular file"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(ParameterError, match=problem):
            save(blobs, included(path))


def test_a_parser_is_given_text_or_bytes_and_its_value_is_kept(
    tmp_path: Path, blobs: BlobDirectory
) -> None:
    (tmp_path / "file").write_text("[1, 2]")

    for encoding, parser, value in (
        ("utf-8", json.loads, [1, 2]),
        ("utf-8", "json.loads", [1, 2]),
        (None, len, 6),
        (None, bytes.decode, "[1, 2]"),
    ):
        entry = save(blobs, included(tmp_path / "file", encoding, parser))
        assert load_entry(entry, blobs) == value
    with pytest.raises(ParameterError, match="parser of parameter 'x' raised AttributeError"):
        save(blobs, included(tmp_path / "file", parser="json.loadz"))


def test_r08_a_store_that_cannot_be_written_to_is_named_and_nothing_is_left(
    tmp_path: Path, blobs: BlobDirectory
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(CONTENT_IN_MEMORY_MAX + 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StoreAccessError, match="File too large"):
            save(blobs, included(tmp_path / "large", None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert not list(Path(blobs.root).glob("*/*"))


def test_a_large_file_is_never_held_in_memory(tmp_path: Path, datastore: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(300 << 20)
    program = f"""
import resource
from pathlib import Path
from engine.config import Config
from engine.flow.includes import IncludedFile
from engine.runtime.inclusion import save_parameters
from engine.runtime.stores import open_stores

blobs = open_stores(Config(datastore={str(datastore)!r}), create=True).blobs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
file = IncludedFile("x", {str(tmp_path / "large")!r}, "utf-8", None, "")
entry = save_parameters({{"x": file}}, blobs)["x"]
print(entry.size_bytes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    size, grown = map(int, done.stdout.split())

    assert size == 300 << 20
    assert grown < 1.2 * CONTENT_IN_MEMORY_MAX
