"""An array in an object store is indexed as the array itself, and moves its own rows only."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.client.ranged import RangedArray, is_ranged
from engine.stores.serializers import serialize


class Blob:
    """Counts the bytes that are read of an array's blob."""

    def __init__(self, array: Any) -> None:
        done = serialize(array, artifact="x", step="s")
        self.array, self.meta = array, done.meta
        self.data = b"".join(done.parts)
        self.moved = self.loads = 0

    def fetch(self, start: int, length: int) -> bytes:
        self.moved += length
        return self.data[start : start + length]

    def load(self) -> Any:
        self.loads += 1
        return self.array

    def ranged(self) -> RangedArray:
        return RangedArray(self.meta, self.fetch, self.load)


bounds = st.none() | st.integers(-25, 25)
steps = st.sampled_from([None, 1, 2, 3, -1, -2, -7])
firsts = st.integers(-20, 19) | st.builds(slice, bounds, bounds, steps)


@given(firsts, st.sampled_from([(), (0,), (slice(1, 3),), (Ellipsis, 1), (None,)]))
def test_rows_are_those_of_the_array(first: Any, rest: tuple[Any, ...]) -> None:
    blob = Blob(np.arange(20 * 4 * 3, dtype="int32").reshape(20, 4, 3))
    key = (first, *rest) if rest else first
    assert np.array_equal(blob.ranged()[key], blob.array[key])
    assert blob.loads == 0


def test_a_slice_moves_its_own_rows() -> None:
    blob = Blob(np.arange(100_000, dtype=float))
    assert blob.ranged()[100:200].sum() == blob.array[100:200].sum()
    assert blob.moved == 100 * 8


def test_a_slice_can_be_changed_and_changes_nothing_else() -> None:
    ranged = Blob(np.zeros(10)).ranged()
    part = ranged[2:4]
    part[:] = 7
    assert ranged[2] == 0


def test_what_needs_all_of_it_loads_it_once() -> None:
    blob = Blob(np.arange(10.0))
    ranged = blob.ranged()
    assert ranged.mean() == 4.5
    assert np.asarray(ranged).sum() == 45
    assert list(ranged[[1, 3]]) == [1.0, 3.0]
    assert (blob.loads, blob.moved) == (1, 0)


def test_its_shape_is_known_without_reading() -> None:
    blob = Blob(np.zeros((5, 3), dtype="int16"))
    ranged = blob.ranged()
    assert (ranged.shape, ranged.ndim, ranged.size, ranged.nbytes, len(ranged)) == (
        (5, 3),
        2,
        15,
        30,
        5,
    )
    assert repr(ranged) == "<int16 array of (5, 3) in the object store>"
    assert (blob.loads, blob.moved) == (0, 0)


def test_a_row_that_is_not_there_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        Blob(np.zeros(3)).ranged()[3]


def test_only_large_arrays_in_rows_are_read_by_range() -> None:
    large, meta = 1 << 30, {"dtype": "<f8", "shape": [1 << 27], "order": "C"}
    assert is_ranged("numpy", large, None, meta)
    assert not is_ranged("numpy", 1000, None, meta)
    assert not is_ranged("pickle", large, None, {})
    assert not is_ranged("numpy", large, "zstd", meta)
    assert not is_ranged("numpy", large, None, {**meta, "order": "F"})
    assert not is_ranged("numpy", large, None, {**meta, "shape": []})
