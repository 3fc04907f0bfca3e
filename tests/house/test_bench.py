"""The benchmark's own arithmetic, plots and tables; its runs are bin/bench's."""

import ast
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import report, s3_report, svg
from benchmarks.lab import BenchError, Lab, run
from benchmarks.memory import TreeWatcher
from benchmarks.page import with_section
from benchmarks.rows import Figure, Row
from benchmarks.s3_report import Case, Load
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


def test_memory_of_a_tree_is_the_sum_of_its_processes() -> None:
    script = (
        "import os, sys, time\n"
        "sys.stdin.readline()\n"
        "if os.fork() == 0:\n"
        "    held = bytearray(90_000_000); time.sleep(0.3); os._exit(0)\n"
        "held = bytearray(60_000_000); os.wait()"
    )
    peaks = []
    for counts_root in (True, False):
        process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
        watcher = TreeWatcher(process.pid, counts_root=counts_root)
        watcher.start()
        process.communicate(b"go\n")
        watcher.join()
        peaks.append(watcher.peak_bytes)
    assert peaks[0] >= 150_000_000 > peaks[1] >= 90_000_000


def test_a_command_writes_its_section_and_keeps_the_others() -> None:
    page = with_section(with_section("", "s3", "## S3\n"), "flows", "# Performance\n\ntext")
    assert page.index("# Performance") < page.index("## S3")
    again = with_section(page, "flows", "# Performance\n\nother")
    assert again == page.replace("text", "other")
    assert with_section(again, "s3", "## S3") == again


def test_text_outside_of_all_sections_is_not_dropped_in_silence() -> None:
    with pytest.raises(ValueError, match="in no section"):
        with_section("by hand", "s3", "## S3")


def s3_cases(**walls: tuple[float, float]) -> list[Case]:
    load = Load("10 x 1 KB", 10, 1000, is_small=True)
    return [
        Case(load, "up", client, number, wall_s, 0.5, 3 << 20)
        for client, times in walls.items()
        for number, wall_s in enumerate(times)
    ]


def test_a_ratio_is_of_one_round_and_cpu_is_by_bytes_and_by_blobs() -> None:
    lines = s3_report.lines_of(s3_cases(aflow=(1.0, 4.0), peer=(2.0, 4.0)))
    assert s3_report.table(lines).splitlines()[2:] == [
        "| 10 x 1 KB | up | **aflow** | 2.5 [1, 4] |  | 50,000 | 50 | 3 |",
        "| 10 x 1 KB | up | peer | 3 [2, 4] | 1.5 [1, 2] | 50,000 | 50 | 3 |",
    ]


@pytest.mark.parametrize(
    ("peer_s", "metaflow_s", "told"),
    [(0.91, 5.0, ["met", "met"]), (0.9, 4.9, ["**not met**", "**not met**"])],
)
def test_the_targets_of_s3_are_the_fastest_other_and_metaflow(
    peer_s: float, metaflow_s: float, told: list[str]
) -> None:
    walls = {"aflow": (1.0, 1.0), "peer": (peer_s, peer_s), "Metaflow": (metaflow_s, metaflow_s)}
    found = s3_report.verdicts(s3_report.lines_of(s3_cases(**walls)))
    assert [line.partition(": ")[2].split(",")[0] for line in found] == told


def test_a_target_is_not_judged_without_both_sides() -> None:
    assert s3_report.verdicts(s3_report.lines_of(s3_cases(aflow=(1.0, 1.0)))) == []
    assert s3_report.verdicts(s3_report.lines_of(s3_cases(peer=(1.0, 1.0)))) == []
