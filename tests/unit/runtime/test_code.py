"""The code of a run: packaged as it begins, read back by the client, kept while it is needed."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine import FlowSpec, client, step
from engine.client import aio
from engine.config import Config
from engine.errors import BlobNotFoundError, CodePackageError, NotFoundError
from engine.package.bundle import SIZE_MAX
from engine.package.index import Remembered
from engine.runtime import Engine
from engine.runtime.code import code_of, source_of
from engine.runtime.stores import Stores, open_stores
from engine.scheduler.journal import manifests_in
from engine.stores.artifacts import save_values
from engine.stores.base import Buffer
from engine.stores.directory import BlobDirectory
from engine.stores.fsck import BlobCheck, Damage
from engine.stores.gc import Request, RunName, collect, digests_of
from engine.stores.journals import JournalReader
from engine.stores.manifest import Entries, FileIdentity, Manifest
from engine.worker.loader import load
from tests.unit.package.trees import plant
from tests.unit.runtime.flows import Quick

FLOW = """
from engine import FlowSpec, step
from lib.words import greeting


class Greets(FlowSpec):
    @step
    def start(self):
        self.said = greeting
        self.next(self.end)

    @step
    def end(self):
        pass
"""
WORDS = "greeting = 'hello'\n"
FILES = {"greets.py": FLOW, "lib/words.py": WORDS, "notes.txt": "none of it"}
SUFFIXES = (".py",)
LATER_NS = 2**62
"""Long after every file of a test was written."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return plant(tmp_path / "project", FILES)


@pytest.fixture
async def stores(datastore: Path) -> Stores:
    return open_stores(Config(datastore=str(datastore)), create=True)


class Counting(BlobDirectory):
    """Counts what is asked of it."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.calls: list[str] = []

    def exists(self, digest: str) -> bool:
        self.calls.append("exists")
        return super().exists(digest)

    def write(self, parts: Sequence[Buffer], digest: str | None = None) -> tuple[str, FileIdentity]:
        self.calls.append("write")
        return super().write(parts, digest)


def journal_manifests(stores: Stores, run_id: str) -> list[Manifest]:
    with JournalReader(str(stores.layout.journal("Greets", run_id))) as journal:
        return [Manifest.unpack(m) for _, payload in journal.scan() for m in manifests_in(payload)]


def greets(project: Path) -> type[FlowSpec]:
    return load(str(project / "greets.py"))


def package_of(flow: type[FlowSpec], stores: Stores) -> str:
    """The digest of the blob of a flow's package."""
    described, note = code_of(flow, "R1", stores, SUFFIXES, now_ns=LATER_NS)
    assert note is None
    return Entries(described["package"])["package"].digest or ""


async def test_a_run_s_code_is_read_back_by_both_clients(project: Path, datastore: Path) -> None:
    await Engine.run(greets(project))

    code = await asyncio.to_thread(lambda: client.Flow("Greets").latest_run.code)  # type: ignore[union-attr]  # it ran
    awaited = await (await aio.Flow("Greets").latest_run).code  # type: ignore[union-attr]  # as above
    assert code is not None
    assert awaited is not None
    assert code.files == await awaited.files == ["greets.py", "lib/words.py"]
    assert code.read("lib/words.py") == await awaited.read("lib/words.py") == WORDS.encode()
    assert code.flowspec == await awaited.flowspec == FLOW
    assert code.script_name == awaited.script_name == "greets.py"
    assert code.info == awaited.info
    assert code.info["files"] == 2
    assert (code.flow_name, code.size) == ("Greets", len(code.data()))
    assert code.data() == await awaited.data()
    assert code.sizes() == await awaited.sizes()
    assert code.sizes()["lib/words.py"] == len(WORDS)
    with code.tarball as tar:
        assert tar.getnames() == code.files
    out = await awaited.extract_to(project / "out")
    assert (out / "greets.py").read_text() == FLOW
    with pytest.raises(NotFoundError, match=r"no file 'notes\.txt'"):
        code.read("notes.txt")


def test_a_temporary_copy_of_the_code_is_removed_after_use(project: Path, datastore: Path) -> None:
    Engine.run_sync(greets(project))
    run = client.Flow("Greets").latest_run
    assert run
    assert run.code
    assert Path(run.code.path).is_file()

    with run.code.extract() as folder:
        assert (Path(folder) / "lib/words.py").read_text() == WORDS

    assert not Path(folder).exists()


async def test_a_task_has_the_code_of_its_run(project: Path, datastore: Path) -> None:
    done = await Engine.run(greets(project))

    def digests() -> tuple[str, str]:
        run = client.Run(f"Greets/{done.run_id}")
        of_run, of_task = run.code, run["end"].task.code
        assert of_run
        assert of_task
        return of_run.digest, of_task.digest

    of_run, of_task = await asyncio.to_thread(digests)
    awaited = await aio.Task(f"Greets/{done.run_id}/end/0").code
    assert awaited is not None
    assert of_run == of_task == awaited.digest


async def test_the_code_is_what_it_was_when_the_run_began(project: Path, datastore: Path) -> None:
    first = await Engine.run(greets(project))
    plant(project, {"lib/words.py": "greeting = 'good night'\n"})
    second = await Engine.run(greets(project))

    def words(run_id: str) -> bytes:
        code = client.Run(f"Greets/{run_id}").code
        assert code
        return code.read("lib/words.py")

    assert await asyncio.to_thread(words, first.run_id) == b"greeting = 'hello'\n"
    assert await asyncio.to_thread(words, second.run_id) == b"greeting = 'good night'\n"


def test_an_unchanged_tree_costs_one_question_to_the_store(project: Path, stores: Stores) -> None:
    flow, blobs = greets(project), Counting(stores.blobs.root)
    stores = replace(stores, blobs=blobs)

    first = package_of(flow, stores)
    assert blobs.calls == ["write"]
    assert package_of(flow, stores) == first
    assert blobs.calls == ["write", "exists"]


def test_an_unchanged_tree_is_not_read(project: Path, stores: Stores) -> None:
    flow = greets(project)
    package_of(flow, stores)
    (index,) = (stores.layout.root / "packages").iterdir()
    remembered = Remembered.unpack(index.read_bytes(), str(project), SUFFIXES)
    other = save_values({"package": b"x" * 5000}, stores.blobs, step="_code")
    index.write_bytes(
        replace(remembered, package=Manifest("", "", "", "0", 0, other).pack()).pack()
    )

    assert package_of(flow, stores) == other["package"].digest
    plant(project, {"lib/words.py": "changed\n"})
    assert package_of(flow, stores) not in ("", other["package"].digest)


def test_a_package_that_was_collected_is_made_again(project: Path, stores: Stores) -> None:
    flow = greets(project)
    digest = package_of(flow, stores)
    Path(stores.blobs.path(digest)).unlink()

    assert package_of(flow, stores) == digest
    assert stores.blobs.exists(digest)


def test_a_damaged_index_is_made_again(project: Path, stores: Stores) -> None:
    flow = greets(project)
    digest = package_of(flow, stores)
    (index,) = (stores.layout.root / "packages").iterdir()
    sound = index.read_bytes()
    index.write_bytes(b"\0" * 100)

    assert package_of(flow, stores) == digest
    assert index.read_bytes() == sound


def damages(manifests: Sequence[Manifest], stores: Stores) -> list[Damage]:
    check = BlobCheck(stores.blobs)
    return [damage for manifest in manifests for damage in check.damages(manifest, "journal")]


async def test_gc_keeps_the_code_of_every_run_and_fsck_and_du_know_it(
    project: Path, datastore: Path, stores: Stores
) -> None:
    done = await Engine.run(greets(project))
    run = RunName("Greets", done.run_id)
    manifests = journal_manifests(stores, done.run_id)
    (code,) = (m for m in manifests if m.step == "_code")
    digest = code.artifacts["package"].digest or ""

    collect(stores.layout, Request(manifests_in, now_us=2**60, grace_us=0))
    assert stores.blobs.exists(digest)
    assert bytes.fromhex(digest) in digests_of(stores.layout, run, manifests_in)
    assert damages(manifests, stores) == []

    os.unlink(stores.blobs.path(digest))
    (damage,) = damages(manifests, stores)
    assert (damage.kind, damage.used_by) == ("missing", f"{run}/_code/0/package")
    with pytest.raises(BlobNotFoundError):
        await (await aio.Run(str(run)).code).data()  # type: ignore[union-attr]  # it has one

    collect(stores.layout, Request(manifests_in, now_us=2**60, grace_us=0, runs=[run]))
    assert not stores.blobs.exists(digest)


def test_a_directory_that_is_too_large_is_told_and_does_not_stop_the_run(
    project: Path, stores: Stores
) -> None:
    with (project / "big.py").open("wb") as file:
        file.truncate(SIZE_MAX + 1)

    described, note = code_of(greets(project), "R1", stores, SUFFIXES, now_ns=LATER_NS)

    assert "package" not in described
    assert (
        described["problem"]
        == f"{project} holds 50 MB of code in 3 files; up to 50 MB are packaged"
    )
    assert note == (
        f"the code was not packaged: {described['problem']}; name what is no code in "
        ".aflowignore, or choose with --package-suffixes"
    )


async def test_a_flow_without_a_file_has_no_package_and_the_reason_is_recorded(
    datastore: Path, stores: Stores
) -> None:
    class Local(FlowSpec):
        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    described, note = code_of(Local, "R1", stores, SUFFIXES, now_ns=LATER_NS)
    assert "notebook, an interactive session or a function" in described["problem"]
    assert note is None
    with pytest.raises(CodePackageError, match="Local was defined in a notebook"):
        source_of(Local)


def test_nothing_is_packaged_if_the_settings_say_none(project: Path, stores: Stores) -> None:
    described, note = code_of(greets(project), "R1", stores, (), now_ns=LATER_NS)

    assert described["problem"] == "package_suffixes is none"
    assert note is None
    assert not list(stores.layout.blobs.glob("??/*"))


def test_the_directory_of_a_module_s_flow_is_the_one_that_its_imports_start_from() -> None:
    source = source_of(Quick)

    assert source.script == "tests/unit/runtime/flows.py"
    assert Path(source.root) == Path(__file__).parents[3]


def test_an_installed_flow_is_not_packaged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = plant(
        tmp_path / "site-packages", {"shipped_flows.py": FLOW, "lib/words.py": "greeting=1"}
    )
    monkeypatch.syspath_prepend(str(site))

    with pytest.raises(CodePackageError, match="part of an installed package"):
        source_of(load("shipped_flows:Greets"))
