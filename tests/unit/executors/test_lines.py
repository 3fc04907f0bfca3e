from hypothesis import given
from hypothesis import strategies as st

from engine.executors.lines import LineSplitter


def texts(*chunks: bytes, max_bytes: int = 64) -> list[str]:
    splitter = LineSplitter(max_bytes)
    found = [text for chunk in chunks for _, text in splitter.feed(chunk, 1)]
    return found + [text for _, text in splitter.flush(2)]


def test_a_line_has_the_time_at_which_its_end_was_read() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a\nb", 1) == ((1, "a"),)
    assert splitter.feed(b"c\n\nd", 2) == ((2, "bc"), (2, ""))
    assert splitter.flush(3) == ((3, "d"),)
    assert splitter.flush(4) == ()


def test_crlf_ends_one_line_also_when_it_is_torn() -> None:
    assert texts(b"a\r\nb\r", b"\nc\r\r\nd\r\n") == ["a", "b", "c", "d"]


def test_a_lone_cr_ends_a_line_and_makes_no_empty_one() -> None:
    assert texts(b"\r10 %\r20 %\r", b"30 %\nx\n\ry\r") == ["10 %", "20 %", "30 %", "x", "y"]


def test_empty_lines_stay_between_crlf() -> None:
    assert texts(b"a\r\n\r\nb\r\n") == ["a", "", "b"]


def test_bytes_that_are_not_utf8_are_shown() -> None:
    assert texts(b"caf\xc3\xa9 \xff\xc3\n\xe2\x82") == ["caf\xe9 \\xff\\xc3", "\\xe2\\x82"]


def test_a_character_that_is_torn_between_reads_is_whole() -> None:
    assert texts(b"caf\xc3", b"\xa9\n") == ["caf\xe9"]


def test_nul_and_other_separators_stay_inside_their_line() -> None:
    assert texts("a\0b\x0bc\u2028d\x85\n".encode()) == ["a\0b\x0bc\u2028d\x85"]


def test_a_long_line_comes_in_pieces_cut_between_characters() -> None:
    assert texts(b"x" * 20 + b"\n", max_bytes=8) == ["x" * 8, "x" * 8, "x" * 4]
    assert texts("\u20ac".encode() * 5, max_bytes=8) == ["\u20ac" * 2, "\u20ac" * 2, "\u20ac"]
    assert texts(b"\x80" * 9, max_bytes=8) == ["\\x80" * 8, "\\x80"]


def test_memory_is_bounded_by_the_longest_piece() -> None:
    splitter = LineSplitter(1000)
    for _ in range(100):
        splitter.feed(b"x" * 700, 1)
        assert len(splitter._partial) < 1000


@given(st.lists(st.binary(max_size=30), max_size=12))
def test_where_the_reads_are_cut_makes_no_difference(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert texts(*chunks, max_bytes=1000) == texts(whole, max_bytes=1000)


@given(st.lists(st.text(st.characters(blacklist_characters="\r\n", codec="utf-8"), max_size=40)))
def test_every_character_comes_out_once_in_order(lines: list[str]) -> None:
    data = "\n".join(lines).encode()
    assert "".join(texts(data, max_bytes=16)) == "".join(lines)
