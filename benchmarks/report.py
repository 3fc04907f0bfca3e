"""docs/PERFORMANCE.md and its plots, from the rows of one run of the benchmark."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import svg
from benchmarks.lab import ROOT, Lab
from benchmarks.page import with_section
from benchmarks.rows import Figure, Row

HEAD = """# Performance

Made by `bin/bench`; nothing here is written by hand. Each figure is the median of its runs, with
the lowest and the highest in brackets; a single run has no brackets. Floors are measured between
the runs, so both see the same machine in the same mood:

- *fork and reap*: a process that imported what a task's process holds forks children that exit at
  once, as many at a time as the run has workers, and reaps them;
- *BLAKE3 + write*: the same bytes hashed by one thread and written to a file in the same place.
  Like ours it runs right after as much was written once: memory new to a virtual machine is slow;
- *python -c 'import asyncio'*: the least that an asyncio program can take to start.

Metaflow runs the same flow file with its import line switched, in an environment of its own, with
its local datastore. Where it ran a smaller size, the table says so.
"""

READING = """
## Reading the figures

- A run's wall time is everything: bash, Python, imports, lint, the run, its end. Start-up is the
  median wall time of a run of two trivial steps, of each engine its own; where a figure is per task
  it is taken off, as the label says.
- Wide flows run with 64 workers, here and with Metaflow.
- "end of the step to start of the next" counts serializing, hashing, writing, the commit,
  scheduling and starting the next task.
- Both cores work for the flow under test, so the floors are those of a busy machine too.
"""


def write(rows: Sequence[Row], lab: Lab, words: Sequence[str]) -> Path:
    """Write docs/PERFORMANCE.md and docs/plots/*.svg; return the page's path."""
    plots = ROOT / "docs" / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    (plots / "tasks.svg").write_text(_tasks_plot(rows))
    (plots / "times.svg").write_text(_times_plot(rows))
    page = ROOT / "docs" / "PERFORMANCE.md"
    text = "\n".join(
        [
            HEAD,
            table(rows),
            "",
            "![Time per task by width of the foreach](plots/tasks.svg)",
            "",
            "![Times beside their floors and Metaflow](plots/times.svg)",
            READING,
            "## Machine and versions\n",
            *(f"- {line}" for line in circumstances(lab)),
            f"- command: `{' '.join(['bin/bench', *words])}`",
        ]
    )
    page.write_text(with_section(page.read_text(), "flows", text))
    return page


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| Workload | Figure | aflow | Floor | Metaflow | Target | Met |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.workload,
            row.figure,
            f"**{_shown(row.ours, row.unit)}**",
            _shown(row.floor, row.unit),
            _shown(row.peer, row.unit),
            "; ".join(text for text, _ in row.targets) or "none set",
            "; ".join("yes" if is_met else "**no**" for _, is_met in row.targets),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(figure: Figure | None, unit: str) -> str:
    if figure is None:
        return ""
    text = f"{svg.number(figure.median)} {unit}".strip()
    if len(figure.values) > 1:
        text += f" [{svg.number(min(figure.values))}, {svg.number(max(figure.values))}]"
    return f"{text} ({figure.note})" if figure.note else text


def _tasks_plot(rows: Sequence[Row]) -> str:
    fans = [r for r in rows if r.workload.startswith("foreach over") and r.floor and r.peer]
    widths = [float(r.workload.split()[2].replace(",", "")) for r in fans]
    series = [
        ("aflow", [(w, r.ours.median) for w, r in zip(widths, fans, strict=True)]),
        ("floor", [(w, r.floor.median) for w, r in zip(widths, fans, strict=True) if r.floor]),
        ("Metaflow", [(widths[0], fans[0].peer.median)] if fans and fans[0].peer else []),
    ]
    return svg.lines("Time per task", ("tasks in the foreach", "ms per task"), series)


def _times_plot(rows: Sequence[Row]) -> str:
    to_ms = {"s": 1e3, "ms": 1.0}
    groups = []
    for row in rows:
        if row.unit not in to_ms or not row.peer:
            continue
        found = (("floor", row.floor), ("aflow", row.ours), ("Metaflow", row.peer))
        parts = [(who, figure.median * to_ms[row.unit]) for who, figure in found if figure]
        groups.append(svg.Group(row.short or row.workload, parts))
    return svg.bars("Times (logarithmic)", "ms", groups)


def circumstances(lab: Lab) -> list[str]:
    cpu = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory_kib = int(_lines("/proc/meminfo")[0].split()[1])
    libraries = ", ".join(f"{name} {version(name)}" for name in ("blake3", "msgpack", "numpy"))
    return [
        f"{cpu[0].partition(': ')[2] if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"{memory_kib / 2**20:.0f} GiB of memory, Linux {platform.release()}",
        f"Python {platform.python_version()}, {libraries}; Metaflow {lab.metaflow_version}",
        f"aflow {version('aflow-engine')} at {_commit()}; filesystem {_filesystem(lab.folder)}",
    ]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _filesystem(folder: Path) -> str:
    """The type of the mount that holds the folder: the longest mount point above it."""
    mounts = [line.split() for line in _lines("/proc/self/mounts")]
    above = [(len(m[1]), m[2]) for m in mounts if folder.is_relative_to(m[1])]
    return max(above, default=(0, "unknown"))[1]


def announce(row: Row) -> None:
    """Tell one row on stderr while the benchmark goes on."""
    verdict = "".join(f"  {'met' if is_met else 'NOT MET'}: {text}" for text, is_met in row.targets)
    print(
        f"{row.workload}: {row.figure}: {_shown(row.ours, row.unit)}"
        f"  floor {_shown(row.floor, row.unit) or '-'}"
        f"  Metaflow {_shown(row.peer, row.unit) or '-'}{verdict}",
        file=sys.stderr,
    )
