"""R-02: what a driver that was killed in its first milliseconds leaves is found, and no damage."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.unit.client.stored import BEGAN_US, succeeded


def forgotten(datastore: Path) -> None:
    """Take the list of runs away."""
    for name in ("metadata.db", "metadata.db-wal", "metadata.db-shm"):
        (datastore / name).unlink(missing_ok=True)


def never_begun(datastore: Path, run_id: str, journal: bytes | None, log: bytes | None) -> None:
    folder = datastore / "runs" / "Fan" / run_id
    folder.mkdir()
    (folder / "lock").touch()
    if journal is not None:
        (folder / "journal").write_bytes(journal)
    if log is not None:
        (folder / "log").write_bytes(log)


def test_a_run_that_is_not_listed_is_found_by_its_id_and_as_the_latest(
    aflow: Call, datastore: Path
) -> None:
    succeeded(datastore, "R1")
    kept = datastore.parent / "kept"
    shutil.copytree(datastore / "runs" / "Fan" / "R1", kept)
    forgotten(datastore)
    succeeded(datastore, "R0", began_us=BEGAN_US - 1)
    assert sorted(os.listdir(datastore / "runs" / "Fan")) == ["R0", "R1"]

    assert aflow("status", "R1").lines[0].startswith("Fan/R1")
    assert aflow("status", "Fan/r1").lines[0].startswith("Fan/R1")
    assert aflow("status", "@latest").lines[0].startswith("Fan/R1")
    assert aflow("status", "R2").code != 0


def test_a_listed_run_is_the_latest_if_none_began_after_it(aflow: Call, datastore: Path) -> None:
    succeeded(datastore, "R1")
    never_begun(datastore, "R2", b"AFJ1", b"AFG1")
    never_begun(datastore, "R3", None, None)
    assert aflow("status", "@latest").lines[0].startswith("Fan/R1")


@pytest.mark.parametrize(
    ("journal", "log"),
    [
        (None, None),
        (b"", None),
        (b"AF", None),
        (b"AFJ1", None),
        (b"AFJ1", b"AF"),
        (b"AFJ1", b"AFG1"),
        (b"AFJ1\x40\0\0\0torn", b"AFG1"),
    ],
)
def test_a_run_that_never_began_is_no_damage(
    aflow: Call, datastore: Path, journal: bytes | None, log: bytes | None
) -> None:
    succeeded(datastore, "R1")
    never_begun(datastore, "R2", journal, log)
    assert aflow("fsck").lines == ["2 runs checked: all is well"]
    assert aflow("fsck", "--reindex").lines == [
        "1 runs listed again",
        "2 runs checked: all is well",
    ]


@pytest.mark.parametrize("journal", [None, b"", b"AFJ1", b"AFJ1\x40\0\0\0torn"])
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_run_that_lost_its_journal_is_damage(
    aflow: Call, datastore: Path, journal: bytes | None, is_listed: bool
) -> None:
    succeeded(datastore, "R1")
    folder = datastore / "runs" / "Fan" / "R1"
    if is_listed:
        (folder / "log").unlink(missing_ok=True)
    else:
        forgotten(datastore)
        (folder / "log").write_bytes(b"AFG1 and lines")
    (folder / "journal").unlink()
    if journal is not None:
        (folder / "journal").write_bytes(journal)
    done = aflow("fsck")
    assert done.code == 6
    assert done.lines[0].startswith(("damaged  Fan/R1: ", "missing  Fan/R1: "))
    assert aflow("fsck", "--reindex").code == 6
