"""The cache of an object store stays within its bound, and keeps what is nowhere else."""

import os
from pathlib import Path

import pytest

from engine.stores.layout import Layout, create_layout
from engine.stores.remote.cache import mark_shipped, mark_unshipped, trim


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_layout(tmp_path / "cache")


def written(layout: Layout, *ages_s: int) -> list[str]:
    """Blobs of 1,000 bytes that were used so long ago."""
    digests = []
    for number, age_s in enumerate(ages_s):
        digest, _ = layout.blob_directory().write([bytes([number]) * 1000])
        at = 1_790_000_000 - age_s
        os.utime(layout.blob_directory().path(digest), (at, at))
        digests.append(digest)
    return digests


def kept(layout: Layout, digests: list[str]) -> list[bool]:
    return [layout.blob_directory().exists(digest) for digest in digests]


def test_what_was_used_longest_ago_goes_first(layout: Layout) -> None:
    digests = written(layout, 30, 10, 20)
    assert trim(layout, 2000) == 1000
    assert kept(layout, digests) == [False, True, True]
    assert trim(layout, 1000) == 1000
    assert kept(layout, digests) == [False, True, False]


def test_nothing_goes_within_the_bound(layout: Layout) -> None:
    digests = written(layout, 1, 2)
    assert trim(layout, 2000) == 0
    assert kept(layout, digests) == [True, True]


def test_nothing_goes_while_a_run_has_what_is_nowhere_else(layout: Layout) -> None:
    digests = written(layout, 1)
    layout.create_run("Flow", "R1")
    mark_unshipped(layout, "Flow", "R1")
    assert trim(layout, 0) == 0
    assert kept(layout, digests) == [True]
    mark_shipped(layout, "Flow", "R1")
    mark_shipped(layout, "Flow", "R1")  # a resume may say it again
    assert trim(layout, 0) == 1000
    assert kept(layout, digests) == [False]


def test_a_blob_that_went_is_fetched_again(layout: Layout) -> None:
    (digest,) = written(layout, 1)
    elsewhere = layout.blob_directory().read(digest)
    trim(layout, 0)
    asked = []

    def fetch(wanted: str) -> None:
        asked.append(wanted)
        layout.blob_directory().write([elsewhere])

    directory = Layout(layout.root, fetch=fetch).blob_directory()
    assert directory.read(digest) == elsewhere
    assert directory.read(digest) == elsewhere
    assert asked == [digest]
