"""R-17: a task costs the same, however wide its foreach; `python -m tests.sim.width` shows 1 M."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.ids import TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.joins import Fanout
from engine.scheduler.machine import Scheduler
from tests.sim.width import GRAPH, SLOTS, Grown, lines_run, r_squared, run_driver, run_machine

WIDTHS = (250, 500, 1_000, 2_000, 4_000)
BYTES_A_TASK = 1024

Record = Callable[[str, object], None]


def machine() -> Scheduler:
    return Scheduler(GRAPH, slots=SLOTS)


def test_r17_the_work_of_the_machine_is_linear_in_the_width(record_property: Record) -> None:
    lines = [lines_run(width, machine()) for width in WIDTHS]
    assert r_squared(WIDTHS, lines) > 0.999_999
    assert lines[-1] / WIDTHS[-1] <= lines[0] / WIDTHS[0]
    record_property("lines_a_task", round(lines[-1] / WIDTHS[-1], 1))


def test_work_that_looks_at_all_siblings_each_time_is_not_linear() -> None:
    class Rescanned(Scheduler):
        def _arrive(self, join: str, task: object, result: ResultRef) -> None:
            super()._arrive(join, task, result)  # type: ignore[arg-type]  # a Task
            for fanout in self._open.values():
                self.check_children(fanout)

        def check_children(self, fanout: Fanout) -> None:
            fanout.is_consistent()

    lines = [lines_run(width, Rescanned(GRAPH, slots=SLOTS)) for width in (50, 100, 200, 400)]
    assert lines[-1] / 400 > 3 * lines[0] / 50


def test_r17_the_machine_takes_a_hundred_thousand_and_keeps_8_bytes_a_task(
    record_property: Record,
) -> None:
    width = 100_000
    grown = Grown.by(lambda: run_machine(width, machine()))
    assert grown.peak_bytes / width <= 64
    record_property("bytes_a_task", round(grown.peak_bytes / width, 1))


def test_r17_the_driver_keeps_less_than_a_kilobyte_a_task(
    tmp_path: Path, record_property: Record
) -> None:
    peaks = []
    for width in (1_000, 4_000):
        folder = tmp_path / str(width)
        folder.mkdir()
        tracemalloc.start()
        try:
            assert run_driver(width, folder) == "succeeded"
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    bytes_a_task = (peaks[1] - peaks[0]) / 3_000
    assert bytes_a_task <= BYTES_A_TASK
    record_property("bytes_a_task", round(bytes_a_task))


def test_a_machine_that_is_done_holds_nothing() -> None:
    done = machine()
    assert run_machine(1_000, done) == 1 + 1 + 1_000 + 1 + 1
    assert done.kept == 0
    assert not done.awaits(TaskKey("end"), 0)


@pytest.mark.parametrize(
    ("ys", "fit"), [((1.0, 2.0, 3.0, 4.0), 1.0), ((1.0, 4.0, 9.0, 16.0), 0.969)]
)
def test_r_squared_tells_a_line_from_a_curve(ys: tuple[float, ...], fit: float) -> None:
    assert r_squared((1.0, 2.0, 3.0, 4.0), ys) == pytest.approx(fit, abs=0.001)
