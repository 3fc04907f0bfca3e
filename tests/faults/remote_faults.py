"""R-06 for whole runs: a share of all requests to S3 fails, or all of them for a while.

python -m tests.faults.remote_faults [--seeds N] [--brown-out SECONDS] [--record FILE]

A run either succeeds, with the artifacts of an undisturbed one, or ends with exit code 6, names
what S3 did not take and how long that was tried, and is completed by a resume when S3 is well
again. Whatever another machine sees in between is whole.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import EXIT_INFRASTRUCTURE
from engine.testing.fault_proxy import KINDS, Faults
from engine.testing.servers import ServerAddress
from tests.faults.crashes import Digests
from tests.faults.remote_site import RemoteSite, own_server, proxied, say, url_of
from tests.reliability.record import add_record_option, write_record

PERCENTS = (0, 10, 50, 90, 100)
DEADLINE_S = 4  # at 100 %, where nothing is gained by waiting
_GAVE_UP = re.compile(
    r"could not (?:look for|\w+) \S*(status|runs|blobs)/\S+ in \d+\.\d s, \d+ attempts"
)


class LargeSite(RemoteSite):
    """The flow with an artifact that goes up in parts."""

    large_bytes = 20 << 20
    limit_s = 400.0
    nap_s = 0.0


@dataclass
class BrownOut(Faults):
    """All requests fail for `lasts_s`, from the first one on that is about a blob."""

    kinds: tuple[str, ...] = ("500:InternalError", "503:ServiceUnavailable", "503:SlowDown")
    lasts_s: float = 60.0
    _since_s: float = field(default=0.0, init=False)

    def choose(self, line: str = "") -> str:
        now_s = time.monotonic()
        if not self._since_s and "/blobs/" in self.heads[-1]:
            self._since_s = now_s
        self.share = float(self._since_s > 0 and now_s - self._since_s < self.lasts_s)
        return super().choose(line)


@dataclass(frozen=True)
class Outcome:
    """How a run behind faults went. `requests` and `faults` were counted at the proxy."""

    code: int
    requests: int
    faults: int
    took_s: float
    problems: Sequence[str]

    def __str__(self) -> str:
        return (
            f"exit code {self.code} in {self.took_s:.1f} s, {self.requests} requests, "
            f"{self.faults} faults, {len(self.problems)} problems"
        )


def undisturbed(folder: Path, server: ServerAddress) -> tuple[Digests, int]:
    """The artifacts of a run without faults, and how many requests it sends."""
    site, faults = LargeSite(folder, url_of(folder), server.variables), Faults(0.0)
    with proxied(server.endpoint_url, faults) as proxy:
        code = site.call(["run", "nested.py"], AWS_ENDPOINT_URL=proxy)
    assert code == 0, site.said()
    return site.runs()[-1].digests, faults.requests


def trial(
    folder: Path,
    server: ServerAddress,
    faults: Faults,
    expected: Digests,
    *,
    deadline_s: int = 120,
) -> Outcome:
    """Run behind `faults`, and look from other machines, and complete what did not succeed."""
    url = url_of(folder)
    here, there, third = (LargeSite(folder / n, url, server.variables) for n in ("a", "b", "c"))
    settings = {"AFLOW_S3_DEADLINE_S": str(deadline_s)}
    began = time.monotonic()
    with proxied(server.endpoint_url, faults) as proxy:
        code = here.call(["run", "nested.py"], AWS_ENDPOINT_URL=proxy, **settings)
    took_s, problems = time.monotonic() - began, []
    requests, failed = faults.requests, sum(faults.by_kind.values())
    if problem := there.check():
        problems.append(f"seen from another machine: {problem}")
    if code == EXIT_INFRASTRUCTURE:
        if not _GAVE_UP.search(here.said()):
            problems.append(f"the error names no key and no time: {here.said()}")
        if here.call(["resume", here.runs()[-1].run_id]):
            problems.append(f"the resume failed: {here.said()}")
    elif code:
        problems.append(f"exit code {code}: {here.said()}")
    if problem := third.check():
        problems.append(f"seen from another machine at the end: {problem}")
    elif third.runs()[-1].digests != expected:
        problems.append("the artifacts differ from those of a run without faults")
    return Outcome(code, requests, failed, took_s, problems)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs at each share of faults")
    parser.add_argument("--brown-out", type=float, default=60.0, metavar="SECONDS")
    add_record_option(parser)
    options = parser.parse_args()
    problems: list[str] = []
    counts = {"runs in S3 behind faults": 0, "requests of them": 0, "faults of them": 0}

    def tell(name: str, outcome: Outcome) -> None:
        say(f"{name:18} {outcome}", *outcome.problems)
        problems.extend(f"{name}: {problem}" for problem in outcome.problems)
        for what, n in zip(counts, (1, outcome.requests, outcome.faults), strict=True):
            counts[what] += n

    with own_server() as (server, place), tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        expected, least = undisturbed(folder / "undisturbed", server)
        for percent in PERCENTS:
            sent = []
            for seed in range(options.seeds):
                faults = Faults(percent / 100, (*KINDS, "silent")[: 7 + (percent == 50)], seed=seed)
                deadline_s = DEADLINE_S if percent == 100 else 120
                place = folder / f"{percent}-{seed}"
                outcome = trial(place, server, faults, expected, deadline_s=deadline_s)
                tell(f"{percent} %, seed {seed}", outcome)
                sent.append(outcome.requests)
            ratio = sum(sent) / len(sent) / least
            say(f"{percent} %: {ratio:.2f} times the {least} requests of a run without faults")
            if percent == 10 and ratio > 1.3:
                problems.append(f"{ratio:.2f} times the least requests at 10 %")
        out = BrownOut(0.0, lasts_s=options.brown_out)
        tell("brown-out", trial(folder / "brown-out", server, out, expected))
    write_record(options.record, "R-06", counts, passed=not problems)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
