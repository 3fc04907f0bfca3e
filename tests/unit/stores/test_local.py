"""The local BlobStore beyond its laws: what the file system refuses, and processes at once."""

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import StoreAccessError
from engine.stores.layout import Layout
from engine.stores.local import LocalBlobStore
from tests.unit.stores.faulty import FaultyCalls


@pytest.mark.parametrize("if_absent", [False, True])
@pytest.mark.parametrize("durability", ["process", "power"])
async def test_a_put_that_is_refused_at_any_call_leaves_nothing(
    layout: Layout, if_absent: bool, durability: str
) -> None:
    store = LocalBlobStore(layout.root, durability=durability)
    errors: list[StoreAccessError] = []
    is_done = False
    while not is_done:
        with FaultyCalls(len(errors), errno.ENOSPC).active():
            try:
                is_done = await store.put("a/b/key", [b"data"], if_absent=if_absent)
            except StoreAccessError as error:
                errors.append(error)
        assert os.listdir(layout.blobs / "tmp") == []
        found = await store.stat("a/b/key")
        if found and not is_done:  # the fault came after the name was there
            assert await store.get("a/b/key") == b"data"
            await store.delete(["a/b/key"])
    assert len(errors) >= 3  # made folders stay, so each try gets further
    assert all(error.need_bytes == 4 and error.free_bytes is not None for error in errors)
    assert await store.get("a/b/key") == b"data"


async def test_other_refusals_are_told(layout: Layout) -> None:
    store = LocalBlobStore(layout.root)
    await store.put("a/key", [b"data"])
    with FaultyCalls(0, errno.EIO, ("open", "stat", "unlink", "scandir")).active():
        with pytest.raises(StoreAccessError, match="cannot read"):
            await store.get("a/key")
        with pytest.raises(StoreAccessError, match="cannot read"):
            await store.stat("a/key")
        with pytest.raises(StoreAccessError, match="cannot delete"):
            await store.delete(["a/key"])
        with pytest.raises(StoreAccessError, match="cannot list"):
            [info async for info in store.list()]
    assert await store.get("a/key") == b"data"


async def test_a_key_below_a_blob_cannot_be_put(layout: Layout) -> None:
    store = LocalBlobStore(layout.root)
    await store.put("a", [b"data"])
    with pytest.raises(StoreAccessError, match="write"):
        await store.put("a/b", [b"data"])
    assert await store.get("a") == b"data"


async def test_files_in_the_making_are_no_keys(layout: Layout) -> None:
    (layout.blobs / "tmp" / "123-abc").write_bytes(b"half")
    store = LocalBlobStore(layout.root)
    await store.put("blobs/ab/cd", [b"x"])
    assert [i.key async for i in store.list("blobs")] == ["blobs/ab/cd"]


async def test_a_link_that_leads_out_is_not_read(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (layout.root / "link").symlink_to(tmp_path / "secret")
    store = LocalBlobStore(layout.root)
    with pytest.raises(StoreAccessError, match="symbolic"):
        await store.get("link")
    assert await store.stat("link") is None
    await store.put("link", [b"mine"])
    assert (tmp_path / "secret").read_text() == "secret"


def test_of_many_processes_one_commits(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from engine.stores.local import LocalBlobStore\n"
        "store = LocalBlobStore(Path(sys.argv[1]))\n"
        "sys.stdin.readline()\n"
        "won = [n for n in range(50) if asyncio.run(\n"
        "    store.put(f'runs/{n}/manifest', [sys.argv[2].encode()], if_absent=True))]\n"
        "print(*won)\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "s"), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate()[0].split() for racer in racers]
    assert sorted(int(n) for wins in won for n in wins) == list(range(50))
    store = LocalBlobStore(tmp_path / "s")
    for n, wins in enumerate(won):
        for key in wins:
            assert asyncio.run(store.get(f"runs/{key}/manifest")) == str(n).encode()
