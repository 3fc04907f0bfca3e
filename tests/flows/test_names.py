"""Names that a flow object has of its own, used by a step."""

from pathlib import Path

import pytest

from tests.flows.harness import Bench
from tests.flows.shapes import SHAPES, Behaviour, Place, flow_source


class OwnName(Behaviour):
    """`self.name` is the flow's name until a step assigns its own, which later steps then read."""

    def body(self, place: Place) -> str:
        if place.name == "start":
            return "assert self.name == 'Shaped'\nself.name = 'mine'"
        return "assert self.name == 'mine', self.name"


@pytest.mark.usefixtures("datastore")
def test_an_artifact_called_name_is_read_by_later_steps(tmp_path: Path) -> None:
    linear = next(shape for shape in SHAPES if shape.name == "linear")
    run = Bench.holding(flow_source(linear, OwnName()), tmp_path).run()
    assert run.data.name == "mine"
