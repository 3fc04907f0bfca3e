"""Every behaviour on every shape that it suits: real processes, checked by client and by CLI."""

from pathlib import Path

import pytest

from tests.flows.behaviours import BEHAVIOURS, Checked
from tests.flows.harness import Bench
from tests.flows.shapes import SHAPES, Shape, flow_source

CASES = [
    (shape, behaviour) for behaviour in BEHAVIOURS for shape in SHAPES if behaviour.suits(shape)
]


@pytest.mark.usefixtures("datastore")
@pytest.mark.parametrize(("shape", "behaviour"), CASES, ids=lambda case: str(case))
def test_the_behaviour_holds_on_the_shape(shape: Shape, behaviour: Checked, tmp_path: Path) -> None:
    bench = Bench.holding(flow_source(shape, behaviour), tmp_path)
    run = behaviour.execute(bench)
    behaviour.check(shape, run, bench)
