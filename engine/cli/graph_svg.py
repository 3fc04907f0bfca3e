"""A flow's graph as an SVG drawing, from top to bottom, made by hand: no dependency. Pure.

A step's row is the longest way to it from the start, so every edge leads down. A step that runs
many times is drawn as a stack.
"""

from collections.abc import Iterator, Mapping
from html import escape

from engine.flow.graph import FANS_OUT, Graph, Kind, Node

_CHAR = 7.3  # px per character of a 12 px monospace font, rounded up
_BOX_HEIGHT = 36.0
_ROW_GAP = 44.0
_COLUMN_GAP = 28.0
_MARGIN = 20.0
_STACK = 4.0

_STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;text-anchor:middle;fill:#1f2430}"
    ".note{font-size:10px;fill:#5c6370}"
    "rect{fill:#f5f7fb;stroke:#3b5b8c;stroke-width:1.2}"
    ".join{fill:#eef6ee;stroke:#3f7d4a}"
    ".end{fill:#f1eef6;stroke:#6b4f9a}"
    "path{fill:none;stroke:#6c7686;stroke-width:1.2}"
)

Places = dict[str, tuple[float, float]]  # step -> centre of its box's top edge


def svg_of(graph: Graph) -> str:
    """The drawing as an SVG document."""
    rows = _rows(graph)
    widths = {name: _width(node) for name, node in graph.nodes.items()}
    places, size = _places(rows, widths)
    shapes = [*_edges(graph, places), *_boxes(graph, places, widths)]
    width, height = size
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{escape(graph.flow)}</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" '
            'orient="auto"><path d="M1,1 L7,4 L1,7" /></marker></defs>',
            *shapes,
            "</svg>",
            "",
        )
    )


def _rows(graph: Graph) -> list[list[str]]:
    """Steps by row; a row keeps the order of the source. A step that leads back is left out."""
    row: dict[str, int] = {}
    arriving = dict.fromkeys(graph.nodes, 0)
    for node in graph.nodes.values():
        for target in _onward(graph, node):
            arriving[target] += 1
    ready = [name for name, count in arriving.items() if count == 0]
    for name in ready:  # grows as it goes
        row.setdefault(name, 0)
        for target in _onward(graph, graph.nodes[name]):
            row[target] = max(row.get(target, 0), row[name] + 1)
            arriving[target] -= 1
            if arriving[target] == 0:
                ready.append(target)
    for name in graph.nodes:  # a cycle that nothing led into
        row.setdefault(name, 0)
    rows: list[list[str]] = [[] for _ in range(max(row.values()) + 1)]
    for name in graph.nodes:
        rows[row[name]].append(name)
    return rows


def _onward(graph: Graph, node: Node) -> Iterator[str]:
    return (t for t in node.next if t != node.name and t in graph.nodes)


def _width(node: Node) -> float:
    return max(len(node.name), *(len(note) * 0.85 for note in _notes(node)), 6) * _CHAR + 24


def _notes(node: Node) -> tuple[str]:
    if node.kind is Kind.FOREACH:
        return (f"for each of {node.foreach}",)
    if node.kind is Kind.GANG:
        return ("many at once",)
    return (f"joins {node.join_of}",) if node.is_join and node.join_of else ("",)


def _places(
    rows: list[list[str]], widths: Mapping[str, float]
) -> tuple[Places, tuple[float, float]]:
    totals = [sum(widths[n] for n in row) + _COLUMN_GAP * (len(row) - 1) for row in rows]
    widest = max(totals)
    places: Places = {}
    for number, (row, total) in enumerate(zip(rows, totals, strict=True)):
        left = _MARGIN + (widest - total) / 2
        for name in row:
            top = _MARGIN + number * (_BOX_HEIGHT + _ROW_GAP)
            places[name] = (left + widths[name] / 2, top)
            left += widths[name] + _COLUMN_GAP
    height = 2 * _MARGIN + len(rows) * (_BOX_HEIGHT + _ROW_GAP) - _ROW_GAP
    return places, (widest + 2 * _MARGIN, height)


def _edges(graph: Graph, places: Places) -> Iterator[str]:
    for node in graph.nodes.values():
        for target in _onward(graph, node):
            x1, y1 = places[node.name][0], places[node.name][1] + _BOX_HEIGHT
            x2, y2 = places[target][0], places[target][1] - 2
            bend = max(20.0, (y2 - y1) / 2)
            yield (
                f'<path d="M{x1:.1f},{y1:.1f} C{x1:.1f},{y1 + bend:.1f} '
                f'{x2:.1f},{y2 - bend:.1f} {x2:.1f},{y2:.1f}" marker-end="url(#tip)" />'
            )


def _boxes(graph: Graph, places: Places, widths: Mapping[str, float]) -> Iterator[str]:
    for name, node in graph.nodes.items():
        (x, y), width = places[name], widths[name]
        kind = "end" if node.kind is Kind.END else "join" if node.is_join else "step"
        many = any(graph.nodes[s].kind in FANS_OUT for s in node.split_parents)
        for shift in (2 * _STACK, _STACK, 0.0) if many else (0.0,):
            yield (
                f'<rect class="{kind}" x="{x - width / 2 + shift:.1f}" y="{y - shift:.1f}" '
                f'width="{width:.1f}" height="{_BOX_HEIGHT:.0f}" rx="6" />'
            )
        note = _notes(node)[0]
        yield f'<text x="{x:.1f}" y="{y + (16 if note else 22):.1f}">{escape(name)}</text>'
        if note:
            yield f'<text class="note" x="{x:.1f}" y="{y + 29:.1f}">{escape(note)}</text>'
