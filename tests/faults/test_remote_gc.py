"""R-20 in S3: collections beside runs of other machines; and runs that end in an upload."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.testing.fault_proxy import Faults
from engine.testing.servers import ServerAddress
from tests.faults.remote_faults import LargeSite
from tests.faults.remote_site import RemoteSite, proxied, url_of


@dataclass
class Watched(Faults):
    """Does `then` once, when a request is `due`; what it returns is the fate of that request."""

    due: Callable[[str], bool] = lambda head: False
    then: Callable[[], str] = str
    happened: threading.Event = field(default_factory=threading.Event)

    def choose(self, line: str = "") -> str:
        self.requests += 1
        if self.happened.is_set() or not self.due(self.heads[-1]):
            return ""
        fate = self.then()
        self.happened.set()
        return fate


def collected(site: RemoteSite, *words: str) -> dict[str, Any]:
    """What `aflow gc` tells on a machine. Any: JSON."""
    code, found = site.json("gc", "--grace", "0s", *(words or ("--yes",)))
    assert code == 0, json.dumps(found)
    return found


def test_r20_a_driver_stopped_between_a_blob_and_its_commit_in_s3_loses_nothing(
    tmp_path: Path, seaweedfs: ServerAddress
) -> None:
    url = url_of(tmp_path)
    here, there = (RemoteSite(tmp_path / n, url, seaweedfs.variables) for n in ("a", "b"))
    driver: list[subprocess.Popen[str]] = []

    def is_commit(head: str) -> bool:
        has_put_a_blob = any(h.startswith("put ") and "/blobs/" in h for h in watched.heads)
        return "/journal/" in head and has_put_a_blob

    def stop() -> str:
        driver[0].send_signal(signal.SIGSTOP)
        return "reset"

    watched = Watched(0.0, due=is_commit, then=stop)
    with proxied(seaweedfs.endpoint_url, watched) as proxy:
        driver.append(here.begin(["run", "nested.py"], AWS_ENDPOINT_URL=proxy))
        assert watched.happened.wait(30)
        done = collected(there)
        assert (done["blobs"], done["complete"], len(done["alive"])) == (0, False, 1)
        assert there.check() == ""
        driver[0].send_signal(signal.SIGCONT)
        assert driver[0].wait(timeout=60) == 0, here.said()
        here.ended()
    assert there.check() == ""
    done = collected(there)
    assert (done["blobs"], done["complete"]) == (0, True)
    assert there.check() == ""


def test_r20_two_machines_that_run_one_flow_while_a_third_collects_lose_nothing(
    tmp_path: Path, seaweedfs: ServerAddress
) -> None:
    url = url_of(tmp_path)
    sites = [RemoteSite(tmp_path / n, url, seaweedfs.variables) for n in ("a", "b")]
    third = RemoteSite(tmp_path / "c", url, seaweedfs.variables)
    running = [site.begin(["run", "nested.py"]) for site in sites]
    collections = 0
    while any(process.poll() is None for process in running):
        collected(third, "--yes", "--keep-last", "1")
        collections += 1
    for site, process in zip(sites, running, strict=True):
        assert process.returncode == 0, site.said()[-600:]
        site.ended()
    assert collections > 0
    collected(third)
    assert third.check() == ""
    runs = third.runs()
    assert runs
    assert len({json.dumps(sorted(map(str, run.digests.items()))) for run in runs}) == 1


def test_r20_a_driver_killed_in_an_upload_leaves_no_blob_and_an_upload_that_gc_drops(
    tmp_path: Path, seaweedfs: ServerAddress
) -> None:
    url = url_of(tmp_path)
    here, there = (LargeSite(tmp_path / n, url, seaweedfs.variables) for n in ("a", "b"))
    watched = Watched(0.0, due=lambda head: "partnumber=2" in head, then=lambda: "silent")
    with proxied(seaweedfs.endpoint_url, watched) as proxy:
        process = here.begin(["run", "nested.py"], AWS_ENDPOINT_URL=proxy)
        assert watched.happened.wait(30)
        process.kill()
        process.wait()
        here.ended()
    assert there.check() == "", "what is there is whole"
    assert there.call(there.next_words) == 0, there.said()
    assert here.call(["resume", here.runs()[-1].run_id]) == 0, here.said()
    assert collected(there, "--dry-run")["uploads"] == 1
    done = collected(there)
    assert (done["uploads"], done["blobs"], done["complete"]) == (1, 0, True)
    assert there.check() == ""
    assert os.listdir(there.store / "blobs" / "tmp") == []
    assert here.orphans() == []


def test_r05_a_run_interrupted_in_an_upload_says_how_the_rest_gets_there(
    tmp_path: Path, seaweedfs: ServerAddress
) -> None:
    url = url_of(tmp_path)
    here, there = (LargeSite(tmp_path / n, url, seaweedfs.variables) for n in ("a", "b"))
    watched = Watched(0.0, due=lambda head: "partnumber=2" in head, then=lambda: "silent")
    with proxied(seaweedfs.endpoint_url, watched) as proxy:
        process = here.begin(["run", "nested.py"], AWS_ENDPOINT_URL=proxy)
        assert watched.happened.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130, here.said()
        here.ended()
    run_id = here.runs()[-1].run_id
    assert f"what was not uploaded is kept here: aflow resume {run_id}" in here.said()
    assert here.orphans() == []
    assert there.check() == ""
    assert here.call(["resume", run_id]) == 0, here.said()
    assert there.check() == ""
    assert collected(there)["complete"]
