"""A hundred runs of one flow at once, from four processes, on one datastore."""

import subprocess
import sys
from pathlib import Path

from engine import Flow

ROOT = Path(__file__).parents[2]
PROCESSES, RUNS = 4, 25

FLOW = """
from engine import FlowSpec, Parameter, step


class Busy(FlowSpec):
    mark = Parameter("mark", type=str, required=True)

    @step
    def start(self):
        self.items = [f"{self.mark}-{i}" for i in range(4)]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print(self.input)
        self.seen = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all = [i.seen for i in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass
"""

DRIVER = """
import asyncio, sys
sys.path.insert(0, {root!r})
from busy import Busy
from engine import Engine

async def main(process):
    marks = [f"p{{process}}r{{number}}" for number in range({runs})]
    async with asyncio.TaskGroup() as group:
        runs = [
            group.create_task(Engine.run(Busy, params={{"mark": mark}}, max_workers=2))
            for mark in marks
        ]
    for mark, run in zip(marks, runs):
        assert run.result().data.all == [f"{{mark}}-{{i}}" for i in range(4)], run.result().data.all
        print(run.result().run_id, mark)

asyncio.run(main(sys.argv[1]))
"""


def test_runs_of_one_flow_at_once_do_not_disturb_each_other(
    datastore: Path, tmp_path: Path
) -> None:
    (tmp_path / "busy.py").write_text(FLOW)
    program = DRIVER.format(root=str(ROOT), runs=RUNS)
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    marks = {}
    for driver in drivers:
        out, err = driver.communicate(timeout=100)
        assert driver.returncode == 0, err
        assert "locked" not in err
        marks |= dict(line.split() for line in out.splitlines())

    assert len(marks) == PROCESSES * RUNS
    listed = {run.id: run for run in Flow("Busy").runs()}
    assert listed.keys() == marks.keys()
    for run_id, mark in marks.items():
        run = listed[run_id]
        assert run.successful
        assert run["join"].task.data.all == [f"{mark}-{i}" for i in range(4)]
        for index, task in enumerate(run["work"]):
            assert task.stdout.strip() == f"{mark}-{task.index}", index
