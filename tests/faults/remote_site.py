"""A flow that is killed and resumed with its datastore in S3, seen from several machines.

A machine is a directory with a cache of its own. What one has of a run is what it drove and what it
pulled; the oracle of crashes.py is asked of that, and of what fsck reads in the object store.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.stores.layout import open_layout
from engine.testing.fault_proxy import Faults, fault_proxy
from engine.testing.servers import ServerAddress, shared_server
from tests.faults.crashes import COMMAND, ROOT, Site
from tests.servers import BUCKET, make_bucket

Variables = Mapping[str, str]


class RemoteSite(Site):
    """A machine. `url` is the datastore that it shares with others.

    Args:
        folder: its directory.
        url: s3://...
        variables: what lets it in.
        outer, inner: the widths of the flow.
    """

    nap_s = 0.04  # so that some of a run is shipped while others of its tasks still run

    def __init__(
        self, folder: Path, url: str, variables: Variables, *, outer: int = 2, inner: int = 17
    ) -> None:
        super().__init__(folder, outer=outer, inner=inner)
        self.cache = folder / "cache"
        self.url = url
        self.shared = {**variables, "AFLOW_DATASTORE": url, "XDG_CACHE_HOME": str(self.cache)}

    @property
    def store(self) -> Path:
        """The directory that goes with the object store, once there is one."""
        found = list((self.cache / "aflow" / "stores").glob("*"))
        return found[0] if found else self.cache / "none"

    @property
    def variables(self) -> Variables:
        return self.shared

    def json(self, *words: str) -> tuple[int, dict[str, Any]]:  # Any: JSON
        """The exit code of a command that prints JSON, and what it printed."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AFLOW_")}
        done = subprocess.run(
            [*COMMAND, *words, "--json"],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(ROOT), **self.variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.limit_s,
        )
        assert done.stdout, f"{words} ended with {done.returncode}: {done.stderr}"
        found: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, found

    def check(self) -> str:
        """What fsck finds when it reads all there is; "" if all is well."""
        code, told = self.json("fsck", "--read-data")
        return f"fsck ended with {code}: {told}" if code or told["damages"] else ""

    def _remains(self) -> Iterator[str]:
        for name in os.listdir(self.store / "blobs/tmp"):
            yield f"blobs/tmp/{name} was left"
        layout = open_layout(self.store)
        for run in self.runs():
            names = set(os.listdir(layout.run("Nested", run.run_id)))
            # One that was killed before its first frame has nothing to ship.
            known = {"journal", "log", "lock", "listed", "indexed"} if run.began else names
            if strangers := names - known:
                yield f"{strangers} were left in run {run.run_id}"
        if problem := self.check():
            yield problem


@contextmanager
def own_server() -> Iterator[tuple[ServerAddress, Path]]:
    """A SeaweedFS with a bucket, and a directory, for a command that runs by itself."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "servers").mkdir()
        with shared_server("seaweedfs", Path(name) / "servers") as address:
            asyncio.run(make_bucket(address))
            yield address, Path(name)


@contextmanager
def proxied(upstream_url: str, faults: Faults) -> Iterator[str]:
    """A fault proxy in a thread of its own; yields its url."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fault proxy")
    thread.start()
    proxy = fault_proxy(upstream_url, faults)
    try:
        url = asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(10)
        try:
            yield url
        finally:
            asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def url_of(folder: Path) -> str:
    """A place of its own in the bucket for what happens in `folder`."""
    return f"s3://{BUCKET}/{'/'.join(folder.parts[-3:])}"


def say(*words: object) -> None:
    """Tell how a long command comes along."""
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()
