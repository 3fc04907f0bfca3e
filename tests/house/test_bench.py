"""The benchmark's own arithmetic, plots and tables; its runs are bin/bench's."""

import ast
import math
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import report, svg
from benchmarks.lab import BenchError, Lab, run
from benchmarks.rows import Figure, Row
from benchmarks.workloads import chain_source


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_a_command_yields_its_time_its_memory_and_what_it_printed(lab: Lab) -> None:
    script = "held = bytearray(60_000_000); import time; time.sleep(0.2); print('BENCH 1.5 2')"
    measured = lab.command(sys.executable, "-c", script)
    assert measured.values == (1.5, 2.0)
    assert measured.wall_s >= 0.2
    assert measured.peak_bytes >= 60_000_000
    assert measured.driver_bytes >= 60_000_000


def test_peak_memory_is_of_the_tree_and_driver_memory_of_the_command_alone(lab: Lab) -> None:
    script = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    held = bytearray(90_000_000)\n"
        "    os._exit(0)\n"
        "os.wait(); time.sleep(0.2)"
    )
    measured = lab.command(sys.executable, "-c", script)
    assert measured.driver_bytes < 60_000_000 < 90_000_000 <= measured.peak_bytes


def test_a_command_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="exited with 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"], cwd=tmp_path, env={})


def test_the_fork_floor_leaves_no_child_and_grows_with_the_count(lab: Lab) -> None:
    assert 0 < lab.floor("fork", "5", "2", '["json"]') < lab.floor("fork", "300", "2", "[]")


def test_the_write_floor_writes_what_it_hashed(lab: Lab) -> None:
    assert lab.floor("write", "2", "1") > 0


def test_a_chain_has_as_many_steps_as_asked_for() -> None:
    tree = ast.parse(chain_source(7))
    steps = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert (len(steps), steps[0], steps[-1]) == (7, "start", "end")


def test_a_target_is_judged_by_medians() -> None:
    row = Row("w", "f", "s", Figure.of([1.0, 2.0, 9.0]), Figure.of([1.0]))
    assert row.at_most_floor(2) == ("at most 2 x floor", True)
    assert row.at_most_floor(1.9) == ("at most 1.9 x floor", False)
    assert row.at_most(1.9, "1.9 s") == ("at most 1.9 s", False)


def test_the_table_shows_median_spread_note_and_verdict() -> None:
    row = Row(
        "w",
        "f",
        "ms",
        Figure.of([1, 2, 4]),
        peer=Figure.of([300], "n = 5"),
        targets=(("t", False),),
    )
    assert report.table([row]).splitlines()[-1] == (
        "| w | f | **2 ms [1, 4]** |  | 300 ms (n = 5) | t | **no** |"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (1.6789, "1.68"), (0.00123456, "0.00123"), (10.0, "10")],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert svg.number(value) == text


def test_a_bar_twice_as_many_decades_long_is_twice_as_long() -> None:
    drawing = ET.fromstring(
        svg.bars("t", "ms", [svg.Group("g", [("floor", 10.0), ("aflow", 100.0)])]).replace(
            "xmlns=", "ignored="
        )
    )
    widths = [float(r.attrib["width"]) for r in drawing.iter("rect") if "x" in r.attrib]
    short, long = widths[-2:]
    assert short == 0
    assert math.isclose(long, widths[-1])
    assert long > 100


def test_lines_are_well_formed_and_escaped() -> None:
    text = svg.lines("a < b", ("x", "y"), [("aflow", [(10, 1.0), (1000, 2.0)])])
    drawing = ET.fromstring(text)
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}circle"))) == 2
