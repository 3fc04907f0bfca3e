"""The judge of crashes and kills sees what it is there to see."""

import os
from pathlib import Path

import pytest

from engine.scheduler.journal import SucceededRecord, decode
from engine.stores.frames import FrameWriter
from engine.stores.journals import JOURNAL_MAGIC, JournalReader
from engine.stores.leases import Lease
from tests.faults.crashes import Site, Undisturbed


@pytest.fixture
def resumed(tmp_path: Path) -> Undisturbed:
    """A run and one that resumed it, both without faults."""
    undisturbed = Undisturbed.run(Site(tmp_path / "site", outer=1, inner=2))
    assert undisturbed.site.call(undisturbed.site.next_words) == 0, undisturbed.site.said()
    assert undisturbed.site.verdict(undisturbed.digests).problems == []
    return undisturbed


def problems(resumed: Undisturbed) -> list[str]:
    return resumed.site.verdict(resumed.digests).problems


def test_the_judge_sees_what_is_left(resumed: Undisturbed) -> None:
    store = resumed.site.store
    run = resumed.site.runs()[-1].run_id
    (store / "blobs" / "tmp" / "1-a").touch()
    (store / "metadata.db.1-a").touch()
    (store / "runs" / "Nested" / run / "more").touch()
    with Lease.acquire(str(store / "runs" / "Nested" / run / "lock"), run=run, since_us=0):
        assert problems(resumed) == [
            "metadata.db.1-a was left in the datastore",
            "blobs/tmp/1-a was left",
            f"the lease of {run} is still held",
            f"{{'more'}} were left in run {run}",
        ]


def test_the_judge_sees_a_blob_that_is_gone_or_changed(resumed: Undisturbed) -> None:
    blobs = sorted((resumed.site.store / "blobs").glob("??/*"))
    blobs[0].unlink()
    blobs[1].write_bytes(b"other")
    (told,) = problems(resumed)
    assert told.startswith("fsck ended with 6")
    assert blobs[0].name in told
    assert blobs[1].name in told


def test_the_judge_sees_a_second_commit(resumed: Undisturbed) -> None:
    run = resumed.site.runs()[-1].run_id
    path = str(resumed.site.store / "runs" / "Nested" / run / "journal")
    with JournalReader(path) as journal:
        commits = [p for _, p in journal.scan() if isinstance(decode(p), SucceededRecord)]
    with FrameWriter(path, JOURNAL_MAGIC) as writer:
        writer.append(commits[0])
    found = problems(resumed)
    assert found[-1] == "1 double commits"
    assert all(problem.startswith("fsck ended with 6") for problem in found[:-1])


def test_the_judge_sees_committed_work_that_ran_again(resumed: Undisturbed) -> None:
    run = resumed.site.runs()[-1].run_id
    with (resumed.site.folder / "ran").open("a") as ran:
        ran.write(f"{run} leaf/0.1\n")
    assert problems(resumed) == ["1 committed tasks were run again"]


def test_the_judge_sees_other_artifacts(resumed: Undisturbed) -> None:
    resumed.digests["end", "0"] = {}
    assert problems(resumed) == ["the artifacts differ from those of an undisturbed run"]


def test_the_judge_sees_a_run_that_took_nothing_over(resumed: Undisturbed) -> None:
    site = resumed.site
    os.rename(site.store / "runs" / "Nested" / site.runs()[-1].run_id, site.folder / "away")
    words = ["resume", site.runs()[-1].run_id, "--step", "start"]
    assert site.call(words) == 0, site.said()
    told = " ".join(problems(resumed))
    assert "7 committed tasks were run again" in told
    assert "7 committed tasks were not reused" in told
