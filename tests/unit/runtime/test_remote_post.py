"""The post of a run, over a store in memory: orders out, words in, and what a dead driver left."""

from msgspec.structs import replace

from engine.executors.base import ExitKind, Job, JobEnded, JobOutput, JobStarted
from engine.executors.batch_requests import moved_name, parcel_name
from engine.executors.batch_submit import Sent
from engine.ids import TaskKey
from engine.runtime.earlier import Earlier
from engine.runtime.remote_post import RemotePost
from engine.stores.artifact_store import manifest_key
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Manifest
from engine.stores.memory import MemoryBlobStore
from engine.stores.remote.parcels import Boot, Ending, Word, word_key, words_prefix
from engine.stores.remote.uploads import Uploads
from engine.stores.taskspec import Report, TaskSpec

BOOT = Boot("F", "new", "f.py:F", is_file=True, names=())


async def nothing() -> None:
    pass


def post_of(
    blobs: MemoryBlobStore, boot: Boot = BOOT, earlier: Earlier | None = None
) -> RemotePost:
    return RemotePost(blobs, boot, Uploads(blobs, BlobDirectory("")), nothing, {"A": "1"}, earlier)


def job(run_id: str, task_id: str = "0", attempt: int = 0, **more: str) -> Job:
    spec = TaskSpec("F", run_id, "s", task_id, attempt, "/somewhere", **more)
    return Job(f"{run_id}-s-{task_id}-{attempt}", spec.pack(), 9.0)


async def say(blobs: MemoryBlobStore, run_id: str, name: str) -> None:
    """What a container says of a job that does well."""
    report = Report(manifest=Manifest("F", run_id, "s", "0", 0).pack()).pack()
    words = {
        0: Word(name, 10, pid=7),
        1: Word(name, 20, [("stdout", [(15, "one")]), ("stderr", [(16, "two")])]),
        None: Word(name, 30, ending=Ending("returned", 0, "", 10, 25, report)),
    }
    for number, word in words.items():
        await blobs.put(word_key("F", run_id, name, "place", number), (word.pack(),))


async def test_words_are_told_once_and_in_order_and_removed_later() -> None:
    blobs = MemoryBlobStore()
    post = post_of(blobs)
    await say(blobs, "new", "new-s-0-0")
    updates = await post.collect()
    assert [type(u) for u in updates] == [JobStarted, JobOutput, JobOutput, JobEnded]
    end = updates[-1]
    assert isinstance(end, JobEnded)
    assert (end.exit.kind, end.started_us, end.ended_us) == (ExitKind.RETURNED, 10, 25)
    for _ in range(10):
        assert await post.collect() == []
    assert [info async for info in blobs.list(words_prefix("F", "new"))] == []


async def test_what_is_committed_settles_a_job_that_said_nothing() -> None:
    blobs = MemoryBlobStore()
    post = post_of(blobs)
    assert await post.settle(job("new")) is None
    manifest = Manifest("F", "new", "s", "0", 0).pack()
    await blobs.put(manifest_key("F", "new", "s", "0"), (manifest,))
    settled = await post.settle(job("new"))
    assert settled is not None
    assert Report.unpack(settled).manifest == manifest


async def test_work_of_a_dead_driver_is_found_if_it_is_the_same() -> None:
    blobs = MemoryBlobStore()
    old = replace(BOOT, run_id="old")
    await post_of(blobs, old).send("parcel", [job("old", "0"), job("old", "1", attempt=2)], 2)
    post = post_of(blobs, BOOT, Earlier(blobs, ("old",), BOOT))
    assert await post.sent([job("new", "2")]) == {}
    found = await post.sent([job("new", "1")])
    assert found == {"parcel": Sent(["", "new-s-1-0"], 2)}
    assert await post.sent([job("new", "0", origin_run_id="old")]) == {
        "parcel": Sent(["new-s-0-0", ""], 2)
    }
    await say(blobs, "old", "old-s-0-0")
    assert {u.name for u in await post.collect()} == {"new-s-0-0"}


async def test_work_of_other_code_is_not_adopted() -> None:
    blobs = MemoryBlobStore()
    await post_of(blobs, replace(BOOT, run_id="old", target="g.py:F")).send("p", [job("old")], 1)
    post = post_of(blobs, BOOT, Earlier(blobs, ("old",), BOOT))
    assert await post.sent([job("new")]) == {}


async def test_of_work_that_was_sent_again_the_last_attempt_is_found() -> None:
    blobs = MemoryBlobStore()
    before = post_of(blobs, replace(BOOT, run_id="old"))
    await before.send(parcel_name(["old-s-2-0", "x"]), [job("old", "2"), job("old", "12")], 1)
    await before.send(moved_name("old-s-12-0"), [job("old", "12")], 1)
    await before.send("old-s-12-1", [job("old", "12", attempt=1)], 1)
    await before.send("old-s-2-9", [job("old", "2", attempt=9)], 1)
    await before.send("old-s-2-10", [job("old", "2", attempt=10)], 1)
    await before.send(moved_name("old-s-2-10"), [job("old", "2", attempt=10)], 1)
    post = post_of(blobs, BOOT, Earlier(blobs, ("old",), BOOT))
    assert await post.sent([job("new", "12")]) == {"old-s-12-1": Sent(["new-s-12-0"])}
    assert await post.sent([job("new", "2")]) == {"old-s-2-10-od": Sent(["new-s-2-0"])}


async def test_an_attempt_that_follows_on_one_that_was_adopted_is_not_looked_for_there() -> None:
    blobs = MemoryBlobStore()
    sent = [job("old", "0"), job("old", "1")]
    await post_of(blobs, replace(BOOT, run_id="old")).send("parcel", sent, 2)
    post = post_of(blobs, BOOT, Earlier(blobs, ("old",), BOOT))
    assert await post.sent([job("new", "0")])
    assert await post.sent([job("new", "0", attempt=1)]) == {}, "it has failed there"


async def test_what_has_failed_there_is_not_taken_over_with_those_of_its_container() -> None:
    blobs = MemoryBlobStore()
    sent = [job("old", "0"), job("old", "1", attempt=3)]
    await post_of(blobs, replace(BOOT, run_id="old")).send("parcel", sent, 2)
    await say(blobs, "old", "old-s-0-0")
    asked: list[tuple[str, TaskKey, int]] = []

    def has_failed(run_id: str, task: TaskKey, attempt: int) -> bool:
        asked.append((run_id, task, attempt))
        return attempt == 0

    post = post_of(blobs, BOOT, Earlier(blobs, ("old",), BOOT, has_failed))
    found = await post.sent([job("new", "0"), job("new", "1")])
    assert found == {"parcel": Sent(["", "new-s-1-0"], 2)}
    assert [(run_id, attempt) for run_id, _, attempt in asked] == [("old", 0), ("old", 3)]
    assert "new-s-0-0" not in {update.name for update in await post.collect()}


async def test_how_workers_are_started_is_no_other_code() -> None:
    blobs = MemoryBlobStore()
    await post_of(blobs, replace(BOOT, run_id="old", isolation="spawn")).send("p", [job("old")], 1)
    post = post_of(blobs, BOOT, Earlier(blobs, ("old",), BOOT))
    assert await post.sent([job("new")]) == {"p": Sent(["new-s-0-0"])}
