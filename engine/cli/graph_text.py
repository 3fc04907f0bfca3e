"""A flow's graph as text and as plain values. Pure."""

from collections.abc import Iterator
from typing import Any

from engine.flow.graph import Graph, Kind, Node

SCHEMA = "aflow/graph/1"


def text_of(graph: Graph, *, doc: str = "") -> Iterator[str]:
    """The graph, a step to a line, indented by the splits that are open around it."""
    yield graph.flow
    yield from (f"  {line.strip()}" for line in doc.strip().splitlines()[:1])
    yield ""
    width = max(len(_indented(node)) for node in graph.nodes.values())
    for node in graph.nodes.values():
        line = f"{_indented(node):{width}}  {_leads(node)}".rstrip()
        notes = ", ".join(_notes(node))
        yield f"{line}  ({notes})" if notes else line
        if first := node.doc.strip().partition("\n")[0]:
            yield f"{'  ' * len(node.split_parents)}    {first}"


def _indented(node: Node) -> str:
    return "  " * len(node.split_parents) + node.name


def _leads(node: Node) -> str:
    if node.kind is Kind.END:
        return "end"
    arrow = f"=> {', '.join(node.next)}"
    if node.kind is Kind.GANG:
        return f"{arrow}  many at once"
    return f"{arrow}  for each of {node.foreach}" if node.kind is Kind.FOREACH else arrow


def _notes(node: Node) -> Iterator[str]:
    if node.is_join:
        yield f"joins {node.join_of}" if node.join_of else "joins"
    if node.retry.times:
        yield f"{node.retry.times} retries"
    if node.catches:
        yield "catches failures"
    if node.timeout_s is not None:
        yield f"at most {node.timeout_s:g} s"


def fields_of(graph: Graph, *, doc: str = "") -> dict[str, Any]:  # Any: JSON
    """The graph for programs."""
    return {
        "schema": SCHEMA,
        "flow": graph.flow,
        "doc": doc.strip(),
        "start": graph.start,
        "end": graph.end,
        "steps": [_step(node) for node in graph.nodes.values()],
    }


def _step(node: Node) -> dict[str, Any]:  # Any: JSON
    return {
        "name": node.name,
        "kind": str(node.kind),
        "next": list(node.next),
        "foreach": node.foreach,
        "is_join": node.is_join,
        "join_of": node.join_of,
        "inside": list(node.split_parents),
        "retries": node.retry.times,
        "catches": node.catches,
        "timeout_s": node.timeout_s,
        "doc": node.doc,
        "where": node.where,
    }
