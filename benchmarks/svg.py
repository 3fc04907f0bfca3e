"""Two kinds of plot as SVG text: bars side by side and lines, both on logarithmic scales."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = {"aflow": "#1668b8", "floor": "#8a94a0", "Metaflow": "#d9822b"}
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#ddd;stroke-width:1}.value{font-size:11px}"
)
_WIDTH = 760
_LEFT = 250
_RIGHT = 90
_BAR = 15
_GAP = 14
_TOP = 64


@dataclass(frozen=True)
class Group:
    """Bars of one workload: (who, value) pairs; all values of a plot have the plot's unit."""

    label: str
    bars: Sequence[tuple[str, float]]


def bars(title: str, unit: str, groups: Sequence[Group]) -> str:
    """Horizontal bars; their lengths are logarithms, so each is labelled with its value."""
    values = [value for group in groups for _, value in group.bars]
    scale = _Scale.over(values, _LEFT, _WIDTH - _RIGHT)
    height = _TOP + sum(_BAR * len(g.bars) + _GAP for g in groups) + 10
    parts = [_text(12, 22, title, "title"), *_legend([w for g in groups for w, _ in g.bars])]
    for tick in scale.ticks():
        x = scale.at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height}"/>')
        parts.append(_text(x, _TOP - 4, f"{number(tick)} {unit}", anchor="middle"))
    y = _TOP + 6
    for group in groups:
        middle = y + _BAR * len(group.bars) / 2 + 4
        parts.append(_text(_LEFT - 8, middle, group.label, anchor="end"))
        for who, value in group.bars:
            x = scale.at(value)
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{x - _LEFT:.1f}" height="{_BAR - 2}"'
                f' fill="{COLOURS[who]}"/>'
            )
            parts.append(_text(x + 5, y + 11, f"{number(value)} {unit}", "value"))
            y += _BAR
        y += _GAP
    return _document(height, parts)


def lines(
    title: str, axes: tuple[str, str], series: Sequence[tuple[str, Sequence[tuple[float, float]]]]
) -> str:
    """Points joined by lines on two logarithmic axes; `axes` names x and y."""
    height, left, bottom = 360, 80, 310
    xs = _Scale.over([x for _, points in series for x, _ in points], left, _WIDTH - _RIGHT)
    ys = _Scale.over([y for _, points in series for _, y in points], bottom, _TOP)
    parts = [_text(12, 22, title, "title"), *_legend([who for who, _ in series])]
    for tick in xs.ticks():
        x = xs.at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 18, f"{tick:,.0f}", anchor="middle"))
    for tick in ys.ticks():
        y = ys.at(tick)
        end = _WIDTH - _RIGHT
        parts.append(f'<line class="grid" x1="{left}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, number(tick), anchor="end"))
    parts.append(_text(_WIDTH / 2, bottom + 38, axes[0], anchor="middle"))
    parts.append(_text(12, _TOP - 10, axes[1]))
    for who, points in series:
        joined = " ".join(f"{xs.at(x):.1f},{ys.at(y):.1f}" for x, y in points)
        colour = COLOURS[who]
        parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        for x, y in points:
            parts.append(f'<circle cx="{xs.at(x):.1f}" cy="{ys.at(y):.1f}" r="4" fill="{colour}"/>')
            parts.append(_text(xs.at(x) + 7, ys.at(y) - 6, number(y), "value"))
    return _document(height, parts)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class _Scale:
    """Powers of ten from `low` to `high`, laid between two coordinates."""

    low: int
    high: int
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "_Scale":
        low = math.floor(math.log10(min(values)))
        high = math.ceil(math.log10(max(values)))
        return cls(low, max(high, low + 1), start, end)

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


def _legend(names: Sequence[str]) -> list[str]:
    parts: list[str] = []
    for i, who in enumerate(dict.fromkeys(names)):
        x = 12 + i * 100
        parts.append(f'<rect x="{x}" y="32" width="10" height="10" fill="{COLOURS[who]}"/>')
        parts.append(_text(x + 15, 41, who))
    return parts


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
    )


def _document(height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}">'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", background, *parts, "</svg>", ""])
