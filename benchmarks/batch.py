"""`bin/bench batch`: what it takes to drive jobs of AWS Batch, beside Metaflow, on the emulator.

    bin/bench batch [--jobs 10000] [--theirs 50] [--seconds 60]

The emulator's no-op jobs run nothing and take some seconds. Metaflow holds a process for each job;
its memory is counted as proportional shares (PSS), so that what processes have in common counts
once. Ours is the whole of one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks.lab import BenchError, Lab

QUEUE = "no-op"
DEADLINE_S = 900.0
_APART_S = 0.3  # all at once they are beyond the calls that Batch takes in a second, and fail


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("bin/bench batch", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="of ours")
    parser.add_argument("--theirs", type=int, default=50, help="jobs of Metaflow's")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a job takes")
    options = parser.parse_args(words)
    rows = [
        ("Metaflow", options.theirs, theirs(options.theirs, options.seconds)),
        ("aflow", options.theirs, ours(options.theirs, options.seconds)),
        ("aflow", options.jobs, ours(options.jobs, options.seconds)),
    ]
    out = sys.stdout
    out.write("driver     jobs   MiB  MiB a job  DescribeJobs a job  all calls a job  calls/s\n")
    for name, jobs, (memory_mib, calls, took_s) in rows:
        total = sum(calls.values())
        out.write(
            f"{name:9}{jobs:>6,} {memory_mib:>5,.0f} {memory_mib / jobs:>10,.3f} "
            f"{calls.get('DescribeJobs', 0) / jobs:>19,.3f} {total / jobs:>16,.3f} "
            f"{total / took_s:>8,.1f}\n"
        )
    return 0


Found = tuple[float, Mapping[str, int], float]


def ours(jobs: int, seconds: float) -> Found:
    """Memory of the driver in MiB, calls by name, and seconds."""
    command = [sys.executable, "-m", "benchmarks.batch_width"]
    command += ["--jobs", str(jobs), "--seconds", str(seconds)]
    found = json.loads(subprocess.check_output(command, text=True, timeout=DEADLINE_S))
    calls = {_camel(name): count for name, count in found["calls"].items()}
    return found["peak_rss_mib"], calls, found["took_s"]


def theirs(jobs: int, seconds: float) -> Found:
    """The same of Metaflow's processes, all together."""
    emulator = [sys.executable, "-P", "-m", "engine.testing.batch", "--queue", QUEUE]
    emulator += ["--no-op", str(seconds), "--vcpus", str(jobs)]
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(emulator, stdout=subprocess.PIPE) as server,
    ):
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["endpoint_url"]
            return _theirs(Path(name), jobs, url)
        finally:
            server.terminate()


def _theirs(folder: Path, jobs: int, url: str) -> Found:
    script = Path(__file__).with_name("batch_metaflow.py")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "METAFLOW_HOME": str(folder),
        "METAFLOW_USER": "bench",
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "ak",
        "AWS_SECRET_ACCESS_KEY": "sk",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    python, began_s = Lab(folder).metaflow_python, time.monotonic()
    processes = []
    for number in range(jobs):
        process = subprocess.Popen(
            [python, script, QUEUE, f"job-{number}"],
            env=env,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        time.sleep(_APART_S)
    most_mib = 0.0
    while any(process.poll() is None for process in processes):
        most_mib = max(most_mib, sum(_pss_mib(process.pid) for process in processes))
        time.sleep(2.0)
    took_s = time.monotonic() - began_s
    calls = Counter[str]()
    for process in processes:
        said, errors = process.communicate()
        if process.returncode:
            raise BenchError(f"a process of Metaflow's ended so: {errors[-500:]}")
        calls.update(json.loads(said)["calls"])
    return most_mib, calls, took_s


def _pss_mib(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


if __name__ == "__main__":
    sys.exit(main())
