"""R-02: what was told survives a loss of power. A sample of python -m tests.faults.power_loss"""

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.faults.power import Disk
from tests.faults.power_loss import campaign
from tests.faults.vfs import Call


def call(kind: str, path: str, other: str = "", offset: int = 0, data: bytes = b"") -> Call:
    return Call(kind, path, other, offset, data)


def test_r02_what_was_told_is_there_after_a_loss_of_power_at_any_call(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    total = campaign(tmp_path, 1, 12, every=11)
    assert total.problems == []
    record_property("prefixes", total.prefixes)
    record_property("directories", total.directories)
    assert total.prefixes >= 12
    assert total.told > 20


def test_r02_without_syncs_a_loss_of_power_does_lose_what_was_told(tmp_path: Path) -> None:
    total = campaign(tmp_path, 0, 10_000, every=10, durability="process")
    assert any("was told and is lost" in problem for problem in total.problems)


def left(calls: list[Call], folder: Path, chance: Random | None = None) -> dict[str, bytes]:
    disk = Disk("/s")
    disk.do(calls)
    disk.build(folder, chance)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_only_what_is_synced_with_its_name_is_sure(tmp_path: Path) -> None:
    calls = [
        call("d", "/s/a"),
        call("c", "/s/a/f"),
        call("w", "/s/a/f", data=b"abc"),
        call("s", "/s/a/f"),
        call("w", "/s/a/f", offset=3, data=b"def"),
    ]
    assert left(calls, tmp_path / "1") == {}
    calls.append(call("s", "/s/a"))
    assert left(calls, tmp_path / "2") == {}, "nobody has synced the directory's own name"
    calls.append(call("s", "/s"))
    assert left(calls, tmp_path / "3") == {"a/f": b"abc"}
    calls += [call("m", "/s/a/f", "/s/g"), call("s", "/s/g"), call("s", "/s")]
    assert left(calls, tmp_path / "4")["g"] == b"abcdef"


def test_what_is_not_synced_may_be_there_in_part(tmp_path: Path) -> None:
    calls = [
        call("c", "/s/g"),
        call("s", "/s"),
        call("w", "/s/g", data=b"abcdef"),
        call("t", "/s/g", offset=2),
    ]
    found = {left(calls, tmp_path / str(seed), Random(seed))["g"] for seed in range(60)}
    assert {b"", b"ab", b"abcdef", b"abc"} <= found
    assert any(data and not data.strip(b"\0") for data in found), "zeros"
