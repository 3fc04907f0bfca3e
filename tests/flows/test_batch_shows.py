"""A small flow in AWS Batch, by the emulator: see batch_shows, which takes a larger one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.testing.servers import ServerAddress
from tests.faults.batch_adoption import environment
from tests.flows.batch_shows import Shows, Subject
from tests.servers import QUEUE

FLOW = """
from engine import FlowSpec, step

class Small(FlowSpec):
    @step
    def start(self):
        self.items = [bytes([number]) * 70_000 for number in range(3)]
        self.next(self.part, foreach="items")

    @step
    def part(self):
        self.mine = self.input[:40_000]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.lengths = [len(task.mine) for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        print("lengths", self.lengths)
"""

SMALL = Subject(
    "small.py",
    FLOW,
    hybrid=[],
    broken=(
        "        self.lengths =",
        '        raise RuntimeError("broken")\n        self.lengths =',
    ),
    steps=("start", "part", "join", "end"),
    remote=("part",),
)


def test_a_flow_leaves_the_same_here_in_batch_and_resumed_in_the_other(
    tmp_path: Path,
    batch_emulator: ServerAddress,
    s3_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: Callable[[str, object], None],
) -> None:
    cache = tmp_path_factory.getbasetemp() / "shows"
    env = environment(batch_emulator, s3_url, cache)
    told = Shows(tmp_path, env, s3_url, QUEUE, SMALL).all(hybrid=False)
    record_property("kinds of run with equal digests", len(told))
    assert len(told) == 4
