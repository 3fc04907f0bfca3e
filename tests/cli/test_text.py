"""Escapes, times, tables: what is printed, character by character."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cli import times
from engine.cli.escapes import safe
from engine.cli.tables import table, terminal_width
from engine.errors import UsageError

RED, RESET = "\x1b[31m", "\x1b[0m"
SGR = re.compile(r"\x1b\[[0-9;:]*m")

# What terminals have been driven with: titles, clipboards, links, moves, resets, 8-bit forms, ...
HOSTILE = [
    ("plain", "plain"),
    ("tab\tin", "tab\tin"),
    ("\x1b]0;title\x07x", "x"),
    ("\x1b]52;c;cm0gLXJm\x07x", "x"),
    ("\x1b]52;c;cm0gLXJm\x1b\\x", "x"),
    ("\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "click"),
    ("\x9d0;title\x9cx", "x"),
    ("\x1b[2J\x1b[Hx", "x"),
    ("\x1b[1A\x1b[2Kx", "x"),
    ("\x9b2Jx", "x"),
    ("\x1b[?1049hx", "x"),
    ("\x1b[6nx", "x"),
    ("\x1bcx", "x"),
    ("\x1b(0x", "x"),
    ("\x1bP1$r\x1b\\x", "x"),
    ("\x1b_hidden\x1b\\x", "x"),
    ("\x1b]0;never ends", r"\x1b]0;never ends"),
    ("\x1b", r"\x1b"),
    ("a\x00b\x07c\x08d\x7f", r"a\x00b\x07c\x08d\x7f"),
    ("a\x85b", r"a\x85b"),
    ("user\u202etxt.exe", r"user\u202etxt.exe"),
    ("\u2066a\u2069", r"\u2066a\u2069"),
    ("a\u2028b", r"a\u2028b"),
    ("\ufeffa", r"\ufeffa"),
    ("caf\xe9 \U0001f600 \u6f22", "caf\xe9 \U0001f600 \u6f22"),
    ("\udc80", r"\udc80"),
    ("10%\r20%\r100%", "100%"),
    ("done\r", "done"),
    ("\r\r", ""),
    ("[train/0] x\r[end/0] forged", "[end/0] forged"),
    ("\x1b\x1b[2J[2Jx", r"\x1b[2Jx"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_s08_hostile_output_is_made_harmless(text: str, shown: str) -> None:
    assert safe(text) == shown
    assert SGR.sub("", safe(text, color=True)) == shown


def test_colour_passes_where_it_is_wanted_and_is_reset() -> None:
    text = f"a{RED}b\x1b[1;4mc\x1b[2Jd"

    assert safe(text) == "abcd"
    assert safe(text, color=True) == f"a{RED}b\x1b[1;4mcd{RESET}"


def test_what_stands_between_colours_is_escaped_too() -> None:
    assert safe(f"{RED}a\x00{RESET}\x1b", color=True) == f"{RED}a\\x00{RESET}\\x1b{RESET}"


@settings(deadline=None)
@given(st.text() | st.text(alphabet="\x1b[]0;mJ\x07\\\x9b\r\u202ePX^_1"), st.booleans())
def test_s08_nothing_that_drives_a_terminal_is_left(text: str, color: bool) -> None:
    rest = SGR.sub("", safe(text, color=color)) if color else safe(text)

    assert all(c == "\t" or c >= " " for c in rest)
    assert not any("\x7f" <= c <= "\x9f" or "\u202a" <= c <= "\u202e" for c in rest)
    assert rest.encode().decode() == rest  # no lone surrogates


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("90s", 10_000_000_000 - 90_000_000),
        ("15m", 10_000_000_000 - 900_000_000),
        ("2h", 10_000_000_000 - 7_200_000_000),
        ("1h30m", 10_000_000_000 - 5_400_000_000),
        ("1.5h", 10_000_000_000 - 5_400_000_000),
        ("1970-01-01T00:00:05Z", 5_000_000),
        ("1970-01-01T01:00:05+01:00", 5_000_000),
    ],
)
def test_instants_are_read(text: str, at_us: int) -> None:
    assert times.parse_instant(text, now_us=10_000_000_000) == at_us


@pytest.mark.parametrize("text", ["", "soon", "7", "h", "-2h", "2026-13-01", "1y"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither a time nor a duration"):
        times.parse_instant(text, now_us=0)


@pytest.mark.parametrize(
    ("past_s", "shown"),
    [
        (-5, "0 s ago"),
        (5, "5 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7199, "1 h ago"),
        (90_000, "1 d ago"),
        (6 * 86_400, "6 d ago"),
        (8 * 86_400, "2026-07-17"),
    ],
)
def test_ages_are_short(past_s: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = 1_785_000_000_000_000

    assert times.age(now_us - past_s * 1_000_000, now_us=now_us) == shown


@pytest.mark.parametrize(
    ("span_us", "shown"),
    [
        (-1, "0 ms"),
        (12_345, "12 ms"),
        (3_440_000, "3.4 s"),
        (320_000_000, "5 min 20 s"),
        (7_500_000_000, "2 h 5 min"),
        (273_600_000_000, "3 d 4 h"),
    ],
)
def test_durations_have_two_figures(span_us: int, shown: str) -> None:
    assert times.duration(span_us) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (3482, "3.4 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes_are_in_binary_units(size: int, shown: str) -> None:
    assert times.size(size) == shown


def test_columns_are_lined_up() -> None:
    assert list(table(("A", "LONGER"), [("1", "2"), ("333", "4")])) == [
        "A    LONGER",
        "1    2",
        "333  4",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert list(table(("A", "B"), [])) == ["A  B"]


def test_lines_are_cut_to_a_terminal_and_not_to_a_pipe() -> None:
    rows = [("x" * 50, "y" * 50)]

    assert max(map(len, table(("A", "B"), rows, width=40))) == 40
    assert list(table(("A", "B"), rows))[1].endswith("y")
    assert terminal_width(is_tty=False) is None
    assert terminal_width(is_tty=True) is not None


def test_a_long_table_begins_before_its_rows_are_read() -> None:
    read: list[int] = []

    def rows() -> Iterator[tuple[str, str]]:
        for number in range(1000):
            read.append(number)
            yield str(number), "x"

    lines = table(("N", "X"), rows())
    next(lines)

    assert len(read) < 1000
    assert sum(1 for _ in lines) == 1000
