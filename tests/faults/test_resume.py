"""R-01: what a resumed run does, counted in its journal. Times: python -m tests.faults.wide."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Engine
from engine.client import Flow
from engine.errors import UsageError
from tests.faults.wide import WideRun
from tests.unit.runtime.flows import Item, Quick

Record = Callable[[str, object], None]


def test_r01_of_a_thousand_items_the_failed_one_runs_and_what_follows_and_no_byte_is_copied(
    tmp_path: Path, record_property: Record
) -> None:
    run = WideRun(tmp_path, 1000)
    before = run.blobs()
    assert run.resume_timed().status == "succeeded"
    first, second = run.commits()
    fresh = {str(c.task) for c in second if not c.reused}
    assert fresh == {"each/999", "gather/0", "end/0"}
    reused = {str(c.task): c.manifest for c in second if c.reused}
    assert reused == {str(c.task): c.manifest for c in first}, "by reference: the same manifests"
    assert before <= run.blobs()
    assert len(run.blobs() - before) <= 1, "the input list of gather, and no copy"
    record_property("tasks reused", len(reused))
    record_property("tasks run after a failed item of 1000", len(fresh))


@pytest.mark.usefixtures("datastore")
async def test_r01_a_run_is_resumed_by_its_id_its_pathspec_or_itself(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    with pytest.raises(Exception, match="broken") as failed:
        await Engine.run(Item, params={"mended": str(mended)}, max_workers=1)
    run = failed.value.run  # type: ignore[attr-defined]  # RunFailedError
    plan = await Engine.plan_resume(Item, run)
    assert (plan.reused, plan.again) == (3, 3)

    mended.touch()
    first = await Engine.resume(Item, run.id)
    second = await Engine.resume(Item, first, resume_step="join")
    third = await Engine.resume(Item, f"Item/{second.id}", resume_step="end")
    assert [r.origin_run_id for r in (first, second, third)] == [run.id, first.id, second.id]
    assert third.data.total == 3
    with pytest.raises(UsageError, match="of another flow"):
        await Engine.resume(Quick, first)


@pytest.mark.usefixtures("datastore")
def test_r01_a_run_is_resumed_from_the_client_and_without_asyncio(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    with pytest.raises(Exception, match="broken"):
        Engine.run_sync(Item, params={"mended": str(mended)})
    mended.touch()
    failed = Flow("Item").latest_run
    assert failed is not None
    done = Engine.resume_sync(Item, failed)
    assert done.origin_run_id == failed.id
    assert Flow("Item")[done.id].origin_pathspec == failed.pathspec
