import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from engine import FlowSpec, Parameter, step
from engine.errors import (
    FlowError,
    MergeError,
    MissingInMergeArtifactsException,
    UnhandledInMergeArtifactsException,
)
from engine.flow.inputs import Inputs
from engine.ids import Frame
from tests.unit.flow.sources import DictSource, bound


class Training(FlowSpec):
    alpha = Parameter("alpha", default=0.1)
    classes = ("cat", "dog")

    @step
    def start(self) -> None:
        self.next(self.train, foreach="items")

    @step
    def train(self) -> None:
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass

    @property
    def broken(self) -> int:
        return self.nowhere  # type: ignore[no-any-return]

    @property
    def doubled(self) -> Any:
        return self.half

    @doubled.setter
    def doubled(self, value: float) -> None:
        self.half = value / 2


def test_an_artifact_is_loaded_when_it_is_touched_and_once() -> None:
    source = DictSource({"model": [1, 2], "unused": "big"})
    flow = bound(Training, source)

    assert flow.model is flow.model
    assert source.loads == ["model"]


def test_a_missing_artifact_names_itself_the_step_and_what_was_meant() -> None:
    flow = bound(Training, {"model": 1}, step="train")

    with pytest.raises(
        AttributeError, match=r"step 'train' has no artifact 'modle' \(did you mean 'model'"
    ):
        flow.modle  # noqa: B018


def test_a_missing_artifact_far_from_all_names_lists_what_exists() -> None:
    flow = bound(Training, {"b": 1, "a": 1}, step="train")

    with pytest.raises(AttributeError, match="it has a and b"):
        flow.zebra  # noqa: B018
    with pytest.raises(AttributeError, match="it has none"):
        bound(Training).zebra  # noqa: B018


def test_a_join_that_looks_for_an_artifact_is_told_of_its_inputs() -> None:
    flow = bound(Training, {"alpha": 0.1}, step="join", is_join=True)

    with pytest.raises(AttributeError, match=r"read inputs, or call self\.merge_artifacts"):
        flow.model  # noqa: B018


def test_an_attribute_error_inside_of_a_property_tells_what_is_missing_there() -> None:
    with pytest.raises(AttributeError, match="no artifact 'nowhere'"):
        bound(Training).broken  # noqa: B018


def test_a_property_with_a_setter_works_on_artifacts() -> None:
    flow = bound(Training)

    flow.doubled = 4

    assert flow._changed() == {"half": 2.0}
    assert flow.doubled == 2.0


def test_changed_are_assigned_and_mutable_artifacts_and_not_untouched_scalars() -> None:
    flow = bound(Training, {"n": 7, "names": ["a"], "pair": (1, "x"), "mixed": (1, []), "same": 3})

    flow.names.append("b")
    assert (flow.n, flow.pair, flow.mixed) == (7, (1, "x"), (1, []))
    flow.same = 4
    flow.fresh = None

    assert flow._changed() == {"names": ["a", "b"], "mixed": (1, []), "same": 4, "fresh": None}


def test_an_equal_value_that_was_assigned_again_counts_as_changed() -> None:
    flow = bound(Training, {"x": 1.5})

    flow.x = flow.x + 0.0

    assert flow._changed() == {"x": 1.5}


@pytest.mark.parametrize("verb", ["set", "deleted"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("alpha", "parameter or a class constant"),
        ("classes", "parameter or a class constant"),
        ("next", "belongs to FlowSpec"),
        ("input", "belongs to FlowSpec"),
        ("foreach_stack", "belongs to FlowSpec"),
        ("_changed", "belongs to FlowSpec"),
        ("_aflow", "belongs to FlowSpec"),
        ("train", "is a step"),
    ],
)
def test_names_that_are_not_artifacts_cannot_be_written(name: str, why: str, verb: str) -> None:
    flow = bound(Training, {"alpha": 0.1}, constants=("alpha", "classes"))

    with pytest.raises(AttributeError, match=f"self.{name} cannot be {verb}: .*{why}"):
        setattr(flow, name, 1) if verb == "set" else delattr(flow, name)


def test_parameters_and_constants_are_read_and_never_saved_again() -> None:
    flow = bound(Training, {"alpha": [0.5]}, constants=("alpha", "classes"))

    assert flow.alpha == [0.5]
    assert flow.alpha is flow.alpha
    assert flow.classes == ("cat", "dog")
    assert flow._changed() == {}


def test_a_deleted_artifact_is_dropped_until_it_is_set_again() -> None:
    flow = bound(Training, {"a": 1, "b": 2})
    flow.c = 3

    del flow.a, flow.b, flow.c

    assert flow._dropped() == {"a", "b"}
    with pytest.raises(AttributeError, match="'a' was deleted in step 'start'"):
        flow.a  # noqa: B018
    with pytest.raises(AttributeError, match="was deleted"):
        del flow.a
    with pytest.raises(AttributeError, match="no artifact 'c'"):
        del flow.c
    flow.b = 5
    assert flow._dropped() == {"a"}
    assert flow._changed() == {"b": 5}


def test_a_step_may_have_artifacts_called_name_and_with_an_underscore() -> None:
    flow = bound(Training)
    assert flow.name == "Training"

    flow.name = "mine"
    flow._private = 1

    assert flow._changed() == {"name": "mine", "_private": 1}


FRAMES = (
    Frame("start", 2, 5),
    Frame("split", 1, 2, is_foreach=False),
    Frame("inner", 0, 3),
)


def test_input_index_and_stack_see_foreach_levels_alone() -> None:
    flow = bound(Training, frames=FRAMES, items=("outer", "inner"))

    assert (flow.index, flow.input) == (0, "inner")
    assert flow.foreach_stack() == [(2, 5, "outer"), (0, 3, "inner")]


def test_outside_of_a_foreach_there_is_no_input() -> None:
    flow = bound(Training, frames=FRAMES[1:2])

    assert (flow.index, flow.input, flow.foreach_stack()) == (None, None, [])


def test_an_item_is_loaded_once() -> None:
    loads: list[int] = []
    flow = bound(Training, frames=FRAMES[:1], items=([],))
    binding = flow.__dict__["_aflow"].binding

    def item(level: int) -> list[int]:
        loads.append(level)
        return []

    flow = Training._bound(type(binding)(binding.source, FRAMES, item, frozenset(), "train"))

    assert flow.input is flow.input
    assert loads == [1]


def test_next_records_where_the_flow_goes() -> None:
    flow = bound(Training, {"items": [1]})
    assert flow._transition is None

    flow.start()

    assert flow._transition == (("train",), "items")


def test_next_takes_several_steps() -> None:
    flow = bound(Training)

    flow.next(flow.train, flow.end)

    assert flow._transition == (("train", "end"), None)


def test_next_called_twice_is_an_error() -> None:
    flow = bound(Training)
    flow.next(flow.end)

    with pytest.raises(FlowError, match=r"step 'start' calls self\.next a second time"):
        flow.next(flow.end)


@pytest.mark.parametrize("items", [None, 3, 1.5, object()])
def test_a_foreach_over_what_is_not_iterable_tells_its_value_and_type(items: object) -> None:
    flow = bound(Training)
    flow.items = items

    with pytest.raises(FlowError, match=f"a {type(items).__name__}, and not iterable"):
        flow.start()
    assert flow._transition is None


@pytest.mark.parametrize("items", [[1], "ab", {"a": 1}, iter([1]), range(3), {1}])
def test_a_foreach_goes_over_any_iterable(items: object) -> None:
    flow = bound(Training)
    flow.items = items

    flow.start()

    assert flow._transition == (("train",), "items")


def test_a_foreach_over_an_artifact_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(
        FlowError, match=r"iterates over self\.items, which does not exist"
    ) as caught:
        bound(Training).start()

    assert "assign it before self.next" in (caught.value.hint or "")


def test_next_refuses_what_is_not_a_step_of_this_flow() -> None:
    flow = bound(Training)
    other = bound(Training)

    for target in ("end", other.end, print, 3, flow.foreach_stack):
        with pytest.raises(FlowError, match="which is not a step of this flow"):
            flow.next(target)  # type: ignore[arg-type]
    with pytest.raises(FlowError) as caught:
        flow.next("end")  # type: ignore[arg-type]
    assert caught.value.hint == "write self.next(self.end)"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"condition": "x"}, "does not support"),
        ({"num_parallel": 0}, "num_parallel=0"),
        ({"num_parallel": 2.5}, r"num_parallel=2\.5"),
        ({"num_parallel": True}, "num_parallel=True"),
        ({"num_parallel": 2, "foreach": "items"}, "foreach='items' and num_parallel=2"),
        ({"bogus": 2}, "does not know"),
        ({"foreach": 3}, "foreach= a int"),
    ],
)
def test_next_refuses_words_that_it_does_not_have(words: dict[str, Any], says: str) -> None:
    flow = bound(Training)

    with pytest.raises(FlowError, match=says):
        flow.next(flow.end, **words)


def test_next_refuses_no_step_the_same_twice_and_foreach_with_two() -> None:
    flow = bound(Training, {"items": [1]})

    for targets, foreach in (
        ((), None),
        ((flow.end, flow.end), None),
        ((flow.end, flow.train), "items"),
    ):
        with pytest.raises(FlowError, match=r"calls self\.next with"):
            flow.next(*targets, foreach=foreach)


def test_a_flow_object_that_is_no_task_can_be_looked_at() -> None:
    flow = Training(use_cli=False)

    assert flow.name == "Training"
    assert [s.__name__ for s in flow] == ["start", "train", "join", "end"]
    assert isinstance(flow.alpha, Parameter)
    with pytest.raises(AttributeError, match="'Training' object has no attribute 'model'"):
        flow.model  # noqa: B018
    with pytest.raises(FlowError, match="this Training object is not a task"):
        flow.next(flow.end)
    flow.x = 1
    assert flow.x == 1


def test_the_command_line_runs_in_the_started_program_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[type] = []
    command = ModuleType("engine.cli.flow_command")
    command.main = ran.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "engine.cli.flow_command", command)
    program = ModuleType("__main__")

    Training()
    monkeypatch.setitem(sys.modules, "__main__", program)
    monkeypatch.setattr(Training, "__module__", "__main__")
    Training()  # a notebook's __main__ has no file
    assert ran == []

    program.__file__ = "/nowhere/training.py"
    program.Training = Training  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "training", program)
    Training(use_cli=False)
    assert ran == []
    Training()
    assert ran == [Training]


# merge_artifacts


def merging(
    *branches: dict[str, Any], own: dict[str, Any] | None = None
) -> tuple[Training, Inputs]:
    parents = [bound(Training, values, step=f"b{i}") for i, values in enumerate(branches)]
    join = bound(Training, {"alpha": 0.1}, step="join", constants=("alpha",), is_join=True)
    for name, value in (own or {}).items():
        setattr(join, name, value)
    return join, Inputs([f"b{i}" for i in range(len(parents))], parents.__getitem__)


def test_merge_passes_on_what_branches_agree_about_without_loading_it() -> None:
    join, inputs = merging({"x": 1, "only": [2], "alpha": 0.1}, {"x": 1, "alpha": 0.1})

    join.merge_artifacts(inputs)

    assert sorted(join._carried) == ["only", "x"]
    assert join._carried["only"].loads == []  # type: ignore[attr-defined]
    assert join.only == [2]
    assert join._changed() == {"only": [2]}
    assert sorted(join._carried) == ["only", "x"]


def test_merge_refuses_differing_values_and_passes_on_nothing() -> None:
    join, inputs = merging({"x": 1, "y": 1, "z": 0}, {"x": 2, "y": 3, "z": 0})

    with pytest.raises(UnhandledInMergeArtifactsException, match="'x', 'y'") as caught:
        join.merge_artifacts(inputs)

    assert caught.value.artifact_names == ["x", "y"]
    assert join._carried == {}


def test_a_value_set_in_the_join_settles_a_conflict() -> None:
    join, inputs = merging({"x": 1, "y": 0}, {"x": 2, "y": 0}, own={"x": 3})

    join.merge_artifacts(inputs)

    assert join.x == 3
    assert sorted(join._carried) == ["y"]


def test_merge_leaves_out_what_is_excluded_and_takes_what_is_included() -> None:
    join, inputs = merging({"x": 1, "y": 0}, {"x": 2, "y": 0})
    join.merge_artifacts(inputs, exclude=["x"])
    assert sorted(join._carried) == ["y"]

    join, inputs = merging({"x": 1, "y": 0}, {"x": 2, "y": 0})
    join.merge_artifacts(inputs, include=["y"])
    assert sorted(join._carried) == ["y"]


def test_the_third_argument_is_include_as_in_metaflow() -> None:
    join, inputs = merging({"x": 1, "y": 0}, {"x": 2, "y": 0})

    join.merge_artifacts(inputs, ["x"])

    assert sorted(join._carried) == ["y"]


def test_merge_of_a_name_that_no_branch_has_is_an_error() -> None:
    join, inputs = merging({"x": 1}, {"x": 1}, own={"mine": 1})

    with pytest.raises(MissingInMergeArtifactsException, match="'nope'") as caught:
        join.merge_artifacts(inputs, include=["x", "nope", "mine", "alpha"])

    assert caught.value.artifact_names == ["nope"]
    assert join._carried == {}


def test_merge_with_include_and_exclude_or_outside_of_a_join_is_an_error() -> None:
    join, inputs = merging({"x": 1})
    with pytest.raises(MergeError, match="both include= and exclude="):
        join.merge_artifacts(inputs, include=["x"], exclude=["y"])

    linear = bound(Training, {"x": 1}, step="train")
    with pytest.raises(MergeError, match="merge_artifacts is for joins; step 'train' is not one"):
        linear.merge_artifacts([])


def test_merge_takes_some_of_the_inputs() -> None:
    join, inputs = merging({"x": 1}, {"x": 2})

    join.merge_artifacts(inputs[:1])

    assert join.x == 1


def test_an_artifact_that_was_merged_can_be_set_and_deleted() -> None:
    join, inputs = merging({"x": 1, "y": 2, "z": 3})
    join.merge_artifacts(inputs)

    join.x = 10
    del join.y

    assert sorted(join._carried) == ["z"]
    assert join._changed() == {"x": 10}
    with pytest.raises(AttributeError, match="'y' was deleted"):
        join.y  # noqa: B018
    join.merge_artifacts(inputs)
    assert join.y == 2
    assert join._dropped() == frozenset()


def test_merging_many_inputs_holds_one_at_a_time() -> None:
    alive: list[int] = []

    class Source(DictSource):
        def __init__(self) -> None:
            super().__init__({"x": 1})

    def make(index: int) -> Training:
        alive.append(index)
        return bound(Training, Source(), step="train")

    join, _ = merging({})
    inputs = Inputs(["train"] * 10_000, make)

    join.merge_artifacts(inputs)

    assert join.x == 1
    assert len(alive) == 10_000
    assert len(inputs._held) == 0


def test_inputs_can_be_iterated_more_than_once() -> None:
    _, inputs = merging({"x": 1}, {"x": 2})

    def total() -> Iterator[int]:
        return (i.x for i in inputs)

    assert (sum(total()), sum(total())) == (3, 3)


def test_a_flow_object_can_be_sent_to_another_process_by_the_step() -> None:
    flow = bound(Training, {"x": [1]}, frames=FRAMES[:1], items=("item",))
    flow.fresh = 2

    copy = pickle.loads(pickle.dumps(flow))

    assert (copy.x, copy.fresh, copy.input, copy.index) == ([1], 2, "item", 2)
