import ast

import pytest

from tests.flows.shapes import SHAPES, Behaviour, Shape, flow_source


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_text_of_every_shape_is_python_with_all_its_steps(shape: Shape) -> None:
    tree = ast.parse(flow_source(shape, Behaviour()))
    steps = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert steps == [place.name for place in shape.places]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_is_well_formed(shape: Shape) -> None:
    names = {place.name for place in shape.places}
    assert {target for place in shape.places for target in place.next} == names - {"start"}
    assert shape.tasks.keys() <= names
