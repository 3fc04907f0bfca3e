"""What drivers and remote jobs leave for each other: it comes back as it was, or is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BlobCorruptError, StoreError
from engine.stores.packed import HEAD_BYTES, PackedList, span_of
from engine.stores.remote.parcels import (
    Boot,
    Ending,
    Order,
    Word,
    pack_parcel,
    word_key,
)

printed = st.lists(st.tuples(st.integers(0, 2**50), st.text()))
lines = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), printed), max_size=4)


@given(lines, st.none() | st.integers(0, 2**22), st.booleans())
def test_a_word_comes_back_as_it_was(
    said: list[tuple[str, list[tuple[int, str]]]], pid: int | None, has_ended: bool
) -> None:
    ending = Ending("returned", 0, "", 1, 2, b"report") if has_ended else None
    word = Word("job", 5, tuple((s, tuple(ls)) for s, ls in said), pid, ending)
    assert Word.unpack(word.pack()) == word


def test_a_parcel_is_read_in_parts() -> None:
    names = [f"j{number}" for number in range(50)]
    boot = Boot("Flow", "run", "flow.py:Flow", is_file=True, names=names)
    data = pack_parcel(boot, [Order(name, name.encode() * 9, 4.0) for name in names])
    for index in (0, 1, 50):
        span = span_of(data[:HEAD_BYTES], index)
        place = span.item(data[span.offsets.start : span.offsets.end])
        assert data[place.start : place.end] == PackedList(data)[index]
    assert Order.unpack(PackedList(data)[7]) == Order("j6", b"j6" * 9, 4.0)
    assert list(Boot.unpack(PackedList(data)[0]).names) == names
    with pytest.raises(IndexError):
        span_of(data[:HEAD_BYTES], 51)
    with pytest.raises(StoreError):
        span_of(b"nothing!", 0)


def test_damage_is_noticed() -> None:
    data = bytearray(Order("job", b"spec").pack())
    data[-1] ^= 1
    with pytest.raises(BlobCorruptError):
        Order.unpack(bytes(data))


def test_words_of_a_job_sort_in_order_and_the_last_one_last() -> None:
    keys = [word_key("F", "R", "job", "place", n) for n in (0, 1, 9, 10, 12_345)]
    keys.append(word_key("F", "R", "job", "place", None))
    assert keys == sorted(keys)
    assert word_key("F", "R", "job", "another", 0) not in keys
