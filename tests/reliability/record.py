"""How a long fault campaign hands over what it counted: `--record FILE`, a line of JSON a row.

A campaign is a command (`python -m tests.faults.kill_campaign`). It calls `add_record_option` on
its parser and, at its end, `write_record`; lines are appended, so that many share one file.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """Let the command take `--record FILE`, which is None if it is not given."""
    parser.add_argument("--record", type=Path, metavar="FILE", help="append what was counted")


def write_record(file: Path | None, row: str, counts: Mapping[str, float], *, passed: bool) -> None:
    """Append what one campaign counted for one row; with no file, do nothing.

    Args:
        file: where to; `--record` of the command line.
        row: the row's id, as `R-07`.
        counts: numbers by what they count, in words: `{"blobs mutated": 412}`.
        passed: whether the row's bar was met.
    """
    if file is None:
        return
    line = {"row": row, "command": _command(), "passed": passed, "counts": dict(counts)}
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")


def _command() -> str:
    """The command that is running, as one would type it, without where it records."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem
    words = sys.argv[1:]
    if "--record" in words:
        at = words.index("--record")
        del words[at : at + 2]
    return " ".join(["python -m", name, *words])
