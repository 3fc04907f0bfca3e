"""A flow's graph as text, JSON and a drawing."""

from xml.etree import ElementTree

from engine.cli.graph_svg import svg_of
from engine.cli.graph_text import fields_of, text_of
from engine.flow.graph import Graph, Kind, Node, Retry
from tests.unit.client.stored import GRAPH

SVG = "{http://www.w3.org/2000/svg}"

WIDE = Graph(
    "Wide",
    {
        "start": Node("start", Kind.SPLIT, ("a", "b")),
        "a": Node(
            "a", Kind.LINEAR, ("join",), split_parents=("start",), retry=Retry(3, 60), timeout_s=90
        ),
        "b": Node("b", Kind.LINEAR, ("c",), split_parents=("start",), catches=True),
        "c": Node("c", Kind.LINEAR, ("join",), split_parents=("start",)),
        "join": Node("join", Kind.LINEAR, ("end",), is_join=True, join_of="start"),
        "end": Node("end", Kind.END, is_join=False),
    },
)


def test_text_shows_where_each_step_leads_indented_by_its_splits() -> None:
    assert list(text_of(GRAPH, doc="Fans out.\n\nMore.")) == [
        "Fan",
        "  Fans out.",
        "",
        "start   => work  for each of items",
        "    Make items.",
        "  work  => join",
        "join    => end  (joins start)",
        "end     end",
    ]


def test_text_names_what_decorates_a_step() -> None:
    lines = list(text_of(WIDE))

    assert "  a    => join  (3 retries, at most 90 s)" in lines
    assert "  b    => c  (catches failures)" in lines
    assert "start  => a, b" in lines


def test_json_holds_every_step_in_order() -> None:
    fields = fields_of(WIDE, doc=" A doc. ")

    assert (fields["schema"], fields["flow"], fields["doc"]) == ("aflow/graph/1", "Wide", "A doc.")
    assert [step["name"] for step in fields["steps"]] == list(WIDE.nodes)
    assert fields["steps"][1] == {
        "name": "a",
        "kind": "linear",
        "next": ["join"],
        "foreach": None,
        "is_join": False,
        "join_of": None,
        "inside": ["start"],
        "retries": 3,
        "catches": False,
        "timeout_s": 90,
        "doc": "",
        "where": "",
    }


def test_the_drawing_has_a_box_a_name_and_the_edges_of_every_step() -> None:
    root = ElementTree.fromstring(svg_of(WIDE))

    names = [text.text for text in root.iter(f"{SVG}text")]
    assert [name for name in names if name in WIDE.nodes] == list(WIDE.nodes)
    edges = [path for path in root.iter(f"{SVG}path") if path.get("marker-end")]
    assert len(edges) == sum(len(node.next) for node in WIDE.nodes.values())
    assert len(list(root.iter(f"{SVG}rect"))) == len(WIDE.nodes)


def test_every_edge_leads_down() -> None:
    root = ElementTree.fromstring(svg_of(WIDE))

    for path in root.iter(f"{SVG}path"):
        if path.get("marker-end"):
            numbers = [
                float(n)
                for part in path.get("d", "")[1:].split()
                for n in part.lstrip("C").split(",")
            ]
            assert numbers[1] < numbers[-1]


def test_a_step_that_runs_many_times_is_a_stack() -> None:
    root = ElementTree.fromstring(svg_of(GRAPH))

    assert len(list(root.iter(f"{SVG}rect"))) == len(GRAPH.nodes) + 2
    assert "for each of items" in svg_of(GRAPH)


def test_a_step_that_leads_to_itself_is_drawn() -> None:
    graph = Graph(
        "Loop",
        {
            "start": Node("start", Kind.SPLIT, ("start", "end")),
            "end": Node("end", Kind.END),
            "a": Node("a", Kind.LINEAR, ("b",)),
            "b": Node("b", Kind.LINEAR, ("a",)),
        },
    )

    root = ElementTree.fromstring(svg_of(graph))

    assert len(list(root.iter(f"{SVG}rect"))) == 4
