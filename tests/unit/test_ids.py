"""Run ids sort by time, and follow each other although the clock does not."""

from hypothesis import example, given
from hypothesis import strategies as st

from engine.ids import CLOCK_AHEAD_MAX_MS, new_run_id, next_run_us, run_id_ms

NOW_MS = 1_767_225_600_000
MS = st.integers(0, 2**50 - 1)


@given(MS, MS, st.integers(), st.integers())
def test_run_ids_sort_as_their_times_do(one: int, other: int, a: int, b: int) -> None:
    first, second = new_run_id(min(one, other), a), new_run_id(max(one, other), b)
    assert first < second or one == other


@given(MS, st.integers())
def test_a_run_id_tells_its_time(now_ms: int, entropy: int) -> None:
    assert run_id_ms(new_run_id(now_ms, entropy)) == now_ms


def test_a_name_that_is_no_run_id_of_ours_tells_none() -> None:
    assert [run_id_ms(name) for name in ("", "r1", "1784", "0" * 15, "U" * 16, "é" * 16)] == [
        None
    ] * 6


@given(st.lists(st.integers(-CLOCK_AHEAD_MAX_MS, CLOCK_AHEAD_MAX_MS), max_size=20), st.integers())
@example([CLOCK_AHEAD_MAX_MS, 0, 1 - CLOCK_AHEAD_MAX_MS], 0)
def test_a_run_follows_all_that_are_there_however_the_clock_was_set(
    clocks_ms: list[int], entropy: int
) -> None:
    run_ids: list[str] = []
    for ahead_ms in clocks_ms:
        began_us = next_run_us((NOW_MS + ahead_ms // 2) * 1000 + 7, run_ids)
        run_ids.append(new_run_id(began_us // 1000, entropy))
    assert run_ids == sorted(set(run_ids))


def test_a_clock_that_is_right_is_taken_as_it_is() -> None:
    earlier = new_run_id(NOW_MS - 1, 0)
    assert next_run_us(NOW_MS * 1000 + 7, [earlier, "r1"]) == NOW_MS * 1000 + 7
    assert next_run_us(NOW_MS * 1000 + 7, []) == NOW_MS * 1000 + 7


def test_a_run_of_a_clock_that_was_wrong_by_far_is_not_followed() -> None:
    far = new_run_id(NOW_MS + CLOCK_AHEAD_MAX_MS + 1, 0)
    assert next_run_us(NOW_MS * 1000, [far, "Z" * 16]) == NOW_MS * 1000
