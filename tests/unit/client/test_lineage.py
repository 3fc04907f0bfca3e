"""Neighbours of tasks, told from the graph and the ids."""

import pytest

from engine.client.lineage import Neighbours, children, depth, parents
from engine.flow.graph import Kind, Node

# start =foreach=> outer =foreach=> inner -> tail -> inner_join -> outer_join => l, r -> meet
NODES = {
    node.name: node
    for node in (
        Node("start", Kind.FOREACH, ("outer",)),
        Node("outer", Kind.FOREACH, ("inner",), split_parents=("start",)),
        Node("inner", Kind.LINEAR, ("tail",), split_parents=("start", "outer")),
        Node("tail", Kind.LINEAR, ("inner_join",), split_parents=("start", "outer")),
        Node("inner_join", Kind.LINEAR, ("outer_join",), split_parents=("start",), is_join=True),
        Node("outer_join", Kind.SPLIT, ("l", "r"), is_join=True),
        Node("l", Kind.LINEAR, ("meet",), split_parents=("outer_join",)),
        Node("r", Kind.LINEAR, ("meet",), split_parents=("outer_join",)),
        Node("meet", Kind.END, is_join=True),
    )
}


@pytest.mark.parametrize(
    ("step", "task_id", "before"),
    [
        ("start", "0", []),
        ("outer", "3", [Neighbours("start", task_id="0")]),
        ("inner", "3.1", [Neighbours("outer", task_id="3")]),
        ("tail", "3.1", [Neighbours("inner", task_id="3.1")]),
        ("inner_join", "3", [Neighbours("tail", prefix="3.")]),
        ("outer_join", "0", [Neighbours("inner_join", prefix="")]),
        ("l", "0", [Neighbours("outer_join", task_id="0")]),
        ("meet", "0", [Neighbours("l", task_id="0"), Neighbours("r", task_id="0")]),
    ],
)
def test_the_tasks_before(step: str, task_id: str, before: list[Neighbours]) -> None:
    assert parents(NODES, step, task_id) == before


@pytest.mark.parametrize(
    ("step", "task_id", "after"),
    [
        ("start", "0", [Neighbours("outer", prefix="")]),
        ("outer", "3", [Neighbours("inner", prefix="3.")]),
        ("inner", "3.1", [Neighbours("tail", task_id="3.1")]),
        ("tail", "3.1", [Neighbours("inner_join", task_id="3")]),
        ("inner_join", "3", [Neighbours("outer_join", task_id="0")]),
        ("outer_join", "0", [Neighbours("l", task_id="0"), Neighbours("r", task_id="0")]),
        ("meet", "0", []),
    ],
)
def test_the_tasks_after(step: str, task_id: str, after: list[Neighbours]) -> None:
    assert children(NODES, step, task_id) == after


def test_a_task_of_another_index_is_no_neighbour() -> None:
    assert Neighbours("x", prefix="3.").has("3.12")
    assert not Neighbours("x", prefix="3.").has("31.1")
    assert Neighbours("x", task_id="3").has("3")
    assert not Neighbours("x", task_id="3").has("31")


def test_only_foreach_counts_for_the_depth() -> None:
    assert [depth(NODES, step) for step in NODES] == [0, 1, 2, 2, 1, 0, 0, 0, 0]
