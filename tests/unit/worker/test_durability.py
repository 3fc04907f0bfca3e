"""What the configuration says of blobs holds in the worker's process too."""

import os
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from engine.errors import Failure
from engine.flow.spec import FlowSpec, step
from engine.stores.directory import identity_of
from engine.stores.manifest import Manifest
from tests.unit.worker.harness import Bench


class Big(FlowSpec):
    @step
    def start(self) -> None:
        self.array = np.zeros(10_000)
        self.next(self.end)

    @step
    def end(self) -> None:
        self.total = self.array.sum()


@pytest.mark.parametrize(("durability", "is_synced"), [("process", False), ("power", True)])
def test_blobs_of_a_task_are_synced_when_power_loss_matters(
    durability: str, is_synced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    bench = Bench(Big, tmp_path)
    monkeypatch.setattr(os, "fsync", synced.append)

    bench.manifest("start", durability=durability)

    assert bool(synced) is is_synced


def test_a_task_that_verifies_always_sees_a_change_that_left_no_trace(tmp_path: Path) -> None:
    bench = Bench(Big, tmp_path)
    parent = bench.manifest("start")
    forged = _with_the_identity_of_changed_bytes(bench, parent)

    assert bench.values(bench.manifest("end", [forged]))["total"] != 0
    failure: Failure = bench.failure("end", [forged], verify="always")
    assert failure.code == "blob-corrupt"


def _with_the_identity_of_changed_bytes(bench: Bench, parent: Manifest) -> Manifest:
    """Change a byte of the blob, and let the manifest say that what is there now was hashed."""
    entry = parent.artifacts["array"]
    assert entry.digest is not None
    with open(bench.blobs.path(entry.digest), "r+b") as file:
        file.seek(8)
        file.write(b"\x40" * 8)
        file.flush()
        identity = identity_of(file.fileno())
    return replace(parent, artifacts={"array": replace(entry, identity=identity)})
