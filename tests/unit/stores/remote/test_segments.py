"""A growing file as objects: what a reader fetches, and what a writer merges."""

from hypothesis import given
from hypothesis import strategies as st

from engine.stores.remote.segments import (
    MERGE_COUNT,
    Merging,
    Segment,
    cover,
    segment_name,
    segment_start,
)


def put_all(sizes: list[int]) -> tuple[dict[int, Segment], Merging]:
    """The objects that a writer leaves who appends stretches of these sizes."""
    objects: dict[int, Segment] = {}
    merging, end = Merging(), 0
    for size in sizes:
        segment = Segment(end, size)
        assert end not in objects, "a name was free that had been used"
        objects[end] = segment
        end = segment.end
        if merged := merging.add(segment):
            objects[merged.start] = merged
    return objects, merging


@given(st.lists(st.integers(1, 1000), max_size=600), st.floats(0, 1))
def test_a_cover_holds_every_byte_in_order_without_a_gap(sizes: list[int], part: float) -> None:
    objects, _ = put_all(sizes)
    total = sum(sizes)
    start = int(total * part)
    end = start
    for segment in cover(objects.values(), start):
        assert segment.start <= end < segment.end
        end = segment.end
    assert end == total


@given(st.lists(st.integers(1, 100), max_size=2000))
def test_a_reader_needs_at_most_15_objects_of_each_level(sizes: list[int]) -> None:
    objects, merging = put_all(sizes)
    levels, left = 0, len(sizes)
    while left:
        levels, left = levels + 1, left // MERGE_COUNT
    assert len(cover(objects.values())) <= (MERGE_COUNT - 1) * levels
    assert merging.count == len(cover(objects.values()))


def test_a_cover_ends_at_a_gap() -> None:
    assert cover([Segment(0, 4), Segment(8, 4)]) == [Segment(0, 4)]
    assert cover([Segment(8, 4)]) == []


def test_a_cover_takes_the_longest_of_what_overlaps() -> None:
    parts = [Segment(0, 4), Segment(4, 4), Segment(0, 12), Segment(8, 8)]
    assert cover(parts) == [Segment(0, 12), Segment(8, 8)]


@given(st.integers(0, 10**15))
def test_the_name_of_a_segment_tells_where_it_begins(start: int) -> None:
    assert segment_start(segment_name(start)) == start


def test_other_names_are_no_segments() -> None:
    assert segment_start("12") is None
    assert segment_start("x" * 16) is None
    assert segment_start("٣" * 16) is None  # a digit, but not one of ours
