import gc

import pytest

from engine import FlowSpec, Parameter, step
from engine.flow.inputs import Inputs
from engine.ids import Frame
from tests.unit.flow.sources import bound


class Fan(FlowSpec):
    alpha = Parameter("alpha", default=1)
    constant = 5

    @step
    def body(self) -> None:
        self.x = self.describe()

    def describe(self) -> str:
        return f"item {self.input}"


class Made:
    """Makes inputs of a foreach, and counts how many it made."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, index: int) -> Fan:
        self.count += 1
        frames = (Frame("start", index, 100_000),)
        return bound(Fan, {"x": index * 2}, step="body", frames=frames, items=(f"i{index}",))


def test_inputs_are_made_when_they_are_asked_for() -> None:
    make = Made()
    inputs = Inputs(["body"] * 100_000, make)

    assert len(inputs) == 100_000
    assert inputs[99_999].x == 199_998
    assert make.count == 1


def test_iteration_holds_one_input_at_a_time_in_index_order() -> None:
    make = Made()
    inputs = Inputs(["body"] * 1_000, make)

    values = [i.x for i in inputs]

    gc.collect()
    assert values == [2 * i for i in range(1_000)]
    assert len(inputs._held) == 0


def test_an_input_that_is_held_is_the_same_object() -> None:
    inputs = Inputs(["body"] * 3, Made())
    first = inputs[0]
    first.mine = 1

    assert inputs[0] is first
    assert inputs[-3] is first
    assert inputs[0].mine == 1


def test_inputs_know_their_index_input_and_methods() -> None:
    inputs = Inputs(["body"] * 3, Made())

    assert [(i.index, i.input, i.describe()) for i in inputs] == [
        (0, "i0", "item i0"),
        (1, "i1", "item i1"),
        (2, "i2", "item i2"),
    ]
    assert inputs[0].constant == 5


def test_slices_give_lists() -> None:
    inputs = Inputs(["body"] * 5, Made())

    assert [i.x for i in inputs[1:3]] == [2, 4]
    assert [i.x for i in inputs[::-2]] == [8, 4, 0]


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_outside_of_the_inputs_tells_how_many_there_are(index: int) -> None:
    with pytest.raises(IndexError, match="the join has 3 inputs, numbered from 0"):
        Inputs(["body"] * 3, Made())[index]


def test_branches_are_found_by_their_last_steps_name_even_count_and_index() -> None:
    inputs = Inputs(["index", "count", "_x"], Made())

    assert inputs.index.x == 0
    assert inputs.count.x == 2


def test_of_several_inputs_of_one_step_its_name_gives_the_last() -> None:
    assert Inputs(["body"] * 4, Made()).body.x == 6


def test_a_name_that_is_no_step_tells_what_was_meant() -> None:
    inputs = Inputs(["left", "right"], Made())

    with pytest.raises(AttributeError, match="did you mean 'right'"):
        inputs.rihgt  # noqa: B018
    with pytest.raises(AttributeError, match="they come from left and right"):
        inputs.elsewhere  # noqa: B018
