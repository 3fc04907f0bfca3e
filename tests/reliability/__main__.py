"""Runs the tests of every row of docs/RELIABILITY.md and writes the page's matrix.

python -m tests.reliability             the tests named after rows (test_r07_..., test_s03_...)
python -m tests.reliability --full      also the long campaigns, about half an hour
python -m tests.reliability --from FILE make the page from results that are there

What was run and counted goes to --results. Exit code 1 if a row has failed, or has nothing to show
and waits for no part.
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.reliability.page import PAGE, drawn
from tests.reliability.results import Campaign, Results, rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / ".cache" / "reliability.json"
_NAMED = " or ".join(f"test_{kind}{tens}" for kind in "rs" for tens in "012")

CAMPAIGNS = (
    ("R-01", "tests.faults.kill_campaign", "--kills", "500"),
    ("R-01", "tests.faults.wide", "--tasks", "10000"),
    ("R-01", "tests.faults.remote_kills", "--kills", "50"),
    ("R-02", "tests.faults.crash_points"),
    ("R-02", "tests.faults.remote_kills", "--points"),
    ("R-02", "tests.faults.power_loss"),
    ("R-06", "tests.faults.remote_faults"),
    ("R-07", "tests.faults.corruption"),
    ("R-08", "tests.faults.disk_faults"),
    ("R-11", "tests.faults.batch_news", "--examples", "10000"),
    ("R-17", "tests.sim.width"),
    ("R-18", "tests.faults.storms"),
    ("R-21", "tests.faults.loop_lag"),
    ("R-23", "tests.sim.run", "--seeds", "10000", "--jobs", "2"),
    ("R-23", "tests.sim.mutants"),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="run the long campaigns, too")
    parser.add_argument("--from", dest="given", type=Path, metavar="FILE", help="run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    parser.add_argument("--campaigns", nargs="*", metavar="MODULE", help="only these of --full")
    options = parser.parse_args()
    if options.given:
        results = Results.read(options.given)
    else:
        results = _run(_campaigns(options))
        options.results.parent.mkdir(exist_ok=True)
        results.write(options.results)
    PAGE.write_text(drawn(PAGE.read_text(), rows(), results))
    problems = results.missing(rows())
    print(*problems, f"{PAGE.relative_to(ROOT)} is written", sep="\n")  # noqa: T201
    return int(bool(problems))


def _campaigns(options: argparse.Namespace) -> list[tuple[str, ...]]:
    if options.campaigns:
        return [c for c in CAMPAIGNS if c[1] in options.campaigns]
    return list(CAMPAIGNS) if options.full else []


def _run(campaigns: list[tuple[str, ...]]) -> Results:
    results = Results(datetime.datetime.now(datetime.UTC).date().isoformat(), _commit(), _machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for marks, at_once in (("serial", ()), ("not serial", ("-n", "2", "--dist", "worksteal"))):
            report = folder / f"{marks}.xml"
            _pytest(report, marks, at_once)
            results.add_tests(report)
        record = folder / "records"
        record.touch()
        for row, module, *words in campaigns:
            _campaign(results, record, row, [module, *words])
        results.add_campaigns(record.read_text().splitlines())
    return results


def _pytest(report: Path, marks: str, words: tuple[str, ...]) -> None:
    command = ["-m", "pytest", "-m", marks, "-k", _NAMED, f"--junitxml={report}", *words]
    # It fails if a test does, which the report tells of.
    subprocess.run([sys.executable, *command], cwd=ROOT, check=False)


def _campaign(results: Results, record: Path, row: str, words: list[str]) -> None:
    """Run a campaign. One that does not record its counts is quoted: the last line that it prints.

    One that is not there fails its row.
    """
    print(f"--- python -m {' '.join(words)}", flush=True)  # noqa: T201
    if find_spec(words[0]) is None:
        results.of(row).failed.append(f"{words[0]} (there is no such campaign)")
        return
    before = record.stat().st_size
    ask = [sys.executable, "-m", words[0], "--help"]
    records = b"--record" in subprocess.run(ask, cwd=ROOT, capture_output=True, check=True).stdout
    code, said = _said([*words, "--record", str(record)] if records else words)
    if record.stat().st_size == before:
        last = (said.strip().splitlines() or ["(nothing)"])[-1]
        quoted = Campaign(row, f"python -m {' '.join(words)}", code == 0, said=last)
        results.of(row).campaigns.append(quoted)


def _said(words: list[str]) -> tuple[int, str]:
    """Run a module, show what it prints and return that, with its exit code before it."""
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            print(line, end="", flush=True)  # noqa: T201
    return process.returncode, "".join(lines)


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _machine() -> str:
    system, cores = f"{platform.system()} {platform.machine()}", len(os.sched_getaffinity(0))
    return f"{system}, {cores} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
