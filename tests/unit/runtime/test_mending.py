"""What is damaged on this machine and whole in the object store is pulled again by a resume."""

from pathlib import Path

import pytest

from tests.unit.runtime.shared_flows import Fan
from tests.unit.runtime.test_shipping import CountedStore, run_on
from tests.unit.stores.remote.machines import machine


def damage(path: Path, where: str) -> None:
    data = bytearray(path.read_bytes())
    at = {"its magic": 0, "its middle": len(data) // 2, "its tail": len(data) - 1}[where]
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["its magic", "its middle", "its tail"])
@pytest.mark.parametrize("name", ["journal", "log"])
async def test_r07_a_resume_pulls_a_damaged_file_again(
    tmp_path: Path, name: str, where: str
) -> None:
    blobs = CountedStore()
    first = await run_on(tmp_path / "a", blobs, Fan, parameters={"fails": True})
    path = tmp_path / "a" / "runs" / "Fan" / first.run_id / name
    whole = path.read_bytes()
    damage(path, where)
    before = blobs.requests["put blobs"]
    second = await run_on(tmp_path / "a", blobs, Fan, resume=first.run_id)
    assert path.read_bytes() == whole
    assert second.status == "failed"  # its parameters are those of the first
    assert blobs.requests["put blobs"] == before, "what was reused was made again"


async def test_r07_what_only_this_machine_has_is_not_written_over(tmp_path: Path) -> None:
    blobs = CountedStore()
    first = await run_on(tmp_path / "a", blobs, Fan, parameters={"fails": True})
    path = tmp_path / "a" / "runs" / "Fan" / first.run_id / "journal"
    whole = path.read_bytes()
    (key,) = [key for key in blobs.blobs if "/journal/" in key]
    data = await blobs.get(key)
    await blobs.put(key, (data[: len(data) * 2 // 3],))  # the rest was not shipped
    damage(path, "its middle")
    stores = machine(tmp_path / "a", blobs)
    await stores.settle("Fan", first.run_id)
    await stores.aclose()
    assert path.read_bytes() == whole


async def test_a_sound_copy_is_not_pulled_again(tmp_path: Path) -> None:
    blobs = CountedStore()
    first = await run_on(tmp_path / "a", blobs, Fan)
    gets = blobs.requests["get"]
    stores = machine(tmp_path / "a", blobs)
    await stores.settle("Fan", first.run_id)
    await stores.aclose()
    assert blobs.requests["get"] - gets <= 2, "the run's status and its tags"
