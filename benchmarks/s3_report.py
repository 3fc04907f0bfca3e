"""What `bin/bench s3` tells: a table, ratios within a round, which targets are met. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import svg

OURS = "aflow"
THEIRS = "Metaflow"
AS_FAST = 1.1
TIMES_METAFLOW = 5.0
GB = 1e9


@dataclass(frozen=True)
class Load:
    """`count` blobs of `size` bytes. A small load has the target that is set against Metaflow."""

    name: str
    count: int
    size: int
    is_small: bool = False


@dataclass(frozen=True)
class Case:
    """One move of a load by a client, in one round. `peak_bytes` is of its whole life."""

    load: Load
    direction: str
    client: str
    round: int
    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Line:
    """A client's cases of a load in one direction. `ratios` are its wall times by ours, each of
    the same round."""

    load: Load
    direction: str
    client: str
    cases: tuple[Case, ...]
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return median(self.ratios) if self.ratios else float("nan")


def lines_of(cases: Sequence[Case]) -> list[Line]:
    """In the order of the loads and clients in `cases`; ratios where ours was measured too."""
    found: dict[tuple[Load, str, str], list[Case]] = {}
    for case in cases:
        found.setdefault((case.load, case.direction, case.client), []).append(case)
    ours = {(c.load, c.direction, c.round): c.wall_s for c in cases if c.client == OURS}
    return [
        Line(load, direction, client, tuple(group), tuple(_ratios(group, ours)))
        for (load, direction, client), group in found.items()
    ]


def _ratios(cases: Sequence[Case], ours: dict[tuple[Load, str, int], float]) -> Iterator[float]:
    for case in cases:
        at = (case.load, case.direction, case.round)
        if at in ours:
            yield case.wall_s / ours[at]


def table(lines: Sequence[Line]) -> str:
    rows = [
        "| load | way | client | wall s | times ours | CPU s per GB | per 1,000 blobs | peak MiB |",
        "|---|---|---|---|---|---:|---:|---:|",
    ]
    for line in lines:
        load = line.load
        cpu_s = median(case.cpu_s for case in line.cases)
        name = f"**{line.client}**" if line.client == OURS else line.client
        cells = [
            load.name,
            line.direction,
            name,
            _spread([case.wall_s for case in line.cases]),
            _spread(line.ratios) if line.ratios and line.client != OURS else "",
            svg.number(cpu_s / (load.count * load.size / GB)),
            svg.number(cpu_s / load.count * 1000) if load.count > 1 else "",
            svg.number(median(case.peak_bytes for case in line.cases) / (1 << 20)),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def verdicts(lines: Sequence[Line]) -> list[str]:
    """One line of Markdown for each load, way and target that the clients in `lines` allow."""
    told = []
    for load, direction in dict.fromkeys((line.load, line.direction) for line in lines):
        peers = [
            line
            for line in lines
            if (line.load, line.direction) == (load, direction)
            and not line.client.startswith(OURS)
            and line.ratios
        ]
        if not peers:
            continue
        fastest = min(peers, key=lambda line: line.ratio)
        is_met = fastest.ratio >= 1 / AS_FAST
        told.append(
            f"- {load.name} {direction}: {_verdict(is_met)}, the fastest other is "
            f"{fastest.client}, at {svg.number(fastest.ratio)} times our wall time"
        )
        for line in peers:
            if line.client == THEIRS and load.is_small:
                is_met = line.ratio >= TIMES_METAFLOW
                told.append(
                    f"- {load.name} {direction}, at least {TIMES_METAFLOW:g} times as fast as "
                    f"Metaflow: {_verdict(is_met)}, {svg.number(line.ratio)} times"
                )
    return told


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**not met**"


def _spread(values: Sequence[float]) -> str:
    text = svg.number(median(values))
    if len(values) > 1:
        text += f" [{svg.number(min(values))}, {svg.number(max(values))}]"
    return text


HEAD = """## S3

Made by `bin/bench s3`; nothing here is written by hand. Every client moves the same blobs to one
SeaweedFS on the same machine and back; each move is a process of its own. Figures are medians of
the rounds, 7 of blobs and 5 of the file, with the lowest and the highest in brackets. In a round
each client moves the load once; each round begins with another client and with a server of its
own, whose disk holds little. "Times ours" are ratios of wall times within a round. A client that
fails, or brings fewer bytes than it should, ends the benchmark.

- Blobs of 4 KiB and 1 MiB are in memory before and after, 64 at a time, by boto3 in 16 threads.
  For s5cmd, which knows only files, they are files, and so is what Metaflow's client reads. The
  large blob is a file.
- Wall and CPU time are of the move alone, after one small blob each way: imports, credentials
  and the first connection do not count. s5cmd and Metaflow's client start processes for each
  move, which do count. CPU time is of the client's processes, not of the server, which has the
  same cores.
- "Peak MiB" is the largest sum of the resident memory of the process and all its descendants,
  looked at every 30 ms from its start on, so imports are in it. Pages that forked processes
  share count for each of them. Of s5cmd it is s5cmd alone.
- Ours moves blobs as a run does. Up to 1 MiB they are put without a condition, for blobs are
  named by their content; larger ones, and what decides who wins, only if the key is free.
  "obstore, asking" is obstore told to ask for a free key, and to mark the blob with its writer,
  as our conditional puts do: what is between the two rows of obstore is the
  price of that, most of it the server's. Blobs are hashed (BLAKE3) one layer up, by who names or
  reads them, and that is in no client's figures.

Targets: no slower than the fastest other by more than a tenth, and on blobs of 4 KiB at least 5
times as fast as Metaflow.
"""


def section(lines: Sequence[Line], circumstances: Sequence[str]) -> str:
    parts = [HEAD, table(lines), "", "### Targets\n", *verdicts(lines), ""]
    return "\n".join([*parts, "### Machine and versions\n", *(f"- {c}" for c in circumstances)])
