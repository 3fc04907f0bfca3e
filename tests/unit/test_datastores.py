"""The directory that goes with an object store, found by the store's URL."""

import errno
from pathlib import Path

import pytest

from engine.config import Config
from engine.datastores import replica_layout
from engine.errors import StoreAccessError
from engine.stores.layout import create_layout
from tests.unit.stores.faulty import FaultyCalls, small_disk


def test_the_directory_says_whose_cache_it_is(tmp_path: Path) -> None:
    config = Config(datastore="s3://bucket/team", cache_dir=str(tmp_path))
    layout = replica_layout(config)
    assert (layout.root / "cache-of").read_text() == "s3://bucket/team\n"
    assert replica_layout(config).root == layout.root


def test_a_full_cache_is_told_with_the_setting_of_its_place(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        config = Config(datastore="s3://bucket/team", cache_dir=str(disk))
        directory = replica_layout(config).blob_directory()
        with pytest.raises(StoreAccessError, match="No space left") as caught:
            directory.write([bytes(2 << 20)])
    hint = str(caught.value.hint)
    assert "cache_dir (AFLOW_CACHE_DIR)" in hint
    assert "--datastore" not in hint


def test_a_full_datastore_is_told_with_the_option_of_its_place(tmp_path: Path) -> None:
    directory = create_layout(tmp_path / "store").blob_directory()
    with FaultyCalls(0, errno.ENOSPC).active(), pytest.raises(StoreAccessError) as caught:
        directory.write([b"x" * 100_000])
    assert "--datastore" in str(caught.value.hint)
    assert "cache_dir" not in str(caught.value.hint)


def test_a_cache_that_is_no_directory_is_told_with_the_setting_of_its_place(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("mine")
    config = Config(datastore="s3://bucket/team", cache_dir=str(tmp_path / "file"))
    with pytest.raises(StoreAccessError, match="create a cache in") as caught:
        replica_layout(config)
    assert "cache_dir (AFLOW_CACHE_DIR)" in str(caught.value.hint)
