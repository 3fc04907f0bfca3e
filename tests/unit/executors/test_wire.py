import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.executors import wire
from engine.executors.wire import FrameReader, Kind, WireFrame

FRAMES = st.lists(
    st.tuples(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=50))
)


@given(FRAMES, st.data())
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(
    frames: list[tuple[Kind, int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(wire.encode(*frame) for frame in frames)
    reader, found, at = FrameReader(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += reader.feed(stream[at : at + size])
        at += size
    assert found == [WireFrame(*frame) for frame in frames]


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="101 bytes; 100 is the most"):
        FrameReader(100).feed(wire.HEAD.pack(101, Kind.READY, 0))
    assert FrameReader(100).feed(wire.encode(Kind.READY, 0, b"x" * 100))


def test_descriptors_are_read_and_a_cut_one_is_left_out() -> None:
    assert wire.unpack_fds(array.array("i", [3, 4]).tobytes() + b"\x01") == [3, 4]
