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


def test_it_is_reckoned_with_as_an_array() -> None:
    array = np.arange(12.0).reshape(4, 3)
    ranged = Blob(array).ranged()
    assert np.array_equal(ranged + 1, array + 1)
    assert np.array_equal(2 - ranged, 2 - array)
    assert np.array_equal(array * ranged, array * array)
    assert np.array_equal(-ranged, -array)
    assert np.array_equal(ranged.T @ ranged, array.T @ array)
    assert (ranged == array).all()
    assert not (ranged < 0).any()
    assert 11.0 in ranged
    changed = Blob(array).ranged()
    changed += 1
    assert np.array_equal(changed, array + 1)


def test_a_walk_over_its_rows_is_one_read_and_not_one_a_row() -> None:
    blob = Blob(np.arange(1000.0))
    assert sum(blob.ranged()) == blob.array.sum()
    assert (blob.loads, blob.moved) == (1, 0)


def test_a_number_of_numpys_is_an_index_like_any_other() -> None:
    blob = Blob(np.arange(1000.0))
    assert blob.ranged()[np.int64(7)] == 7
    assert np.array_equal(blob.ranged()[True], blob.array[True])
    assert blob.loads == 1, "True is no row"


def test_an_array_without_columns_can_be_sliced() -> None:
    blob = Blob(np.zeros((4, 0)))
    assert blob.ranged()[1:3].shape == (2, 0)


@pytest.mark.parametrize("copy", [True, False, None])
def test_it_becomes_an_array(copy: bool | None) -> None:
    blob = Blob(np.arange(3.0))
    whole = blob.ranged().__array__(None, copy)
    assert np.array_equal(whole, blob.array)
    assert (whole is blob.array) is not copy


def test_a_row_can_be_set_without_changing_what_is_stored() -> None:
    blob = Blob(np.arange(3.0))
    blob.array = blob.array.copy()
    ranged = blob.ranged()
    ranged[1] = 7
    assert list(ranged) == [0.0, 7.0, 2.0]
    with pytest.raises(TypeError, match="unhashable"):
        hash(ranged)


def test_a_blob_that_became_shorter_is_told_of_by_who_loads_it_whole() -> None:
    blob = Blob(np.arange(10.0))
    blob.data = blob.data[:20]
    assert list(blob.ranged()[1:4]) == [1.0, 2.0, 3.0]
    assert blob.loads == 1
