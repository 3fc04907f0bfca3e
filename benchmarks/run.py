"""`python -m benchmarks.run [--only NAME ...] [--quick]`: measure, then write the report.

The whole benchmark takes about half an hour, most of it Metaflow's. `--only` and `--quick` print
their table instead of writing docs/PERFORMANCE.md, which shows complete runs only.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.lab import ROOT, BenchError, Lab
from benchmarks.rows import Row
from benchmarks.workloads import WORKLOADS


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=WORKLOADS, help="run this one alone")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it all work?")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "bench")
    options = parser.parse_args(words)
    lab = Lab(options.folder.resolve(), options.quick)
    rows: list[Row] = []
    try:
        for name in options.only or WORKLOADS:
            found = WORKLOADS[name](lab)
            for row in found:
                report.announce(row)
            rows += found
    except BenchError as error:
        print(f"error[bench]: {error}", file=sys.stderr)
        return 1
    if options.only or options.quick:
        print(report.table(rows))
    else:
        print(f"wrote {os.path.relpath(report.write(rows, lab, words))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
