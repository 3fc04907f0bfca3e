"""A flow in AWS Batch, by the emulator, does what it does here: the same digests, one by one.

python -m tests.flows.batch_shows [--folder DIR]

Starts `aflow dev up` in a folder of its own, and runs examples/digits.py locally, with all its
steps in Batch, and with some of them there. Then a run that fails in Batch is resumed here, and one
that fails here is resumed in Batch.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import boto3

from tests.flows.harness import ROOT, Said, aflow

LIMIT_S = 600.0
_ENDED = ("SUCCEEDED", "FAILED")

Digests = dict[str, list[dict[str, str]]]


@dataclass(frozen=True)
class Subject:
    """A flow's text; what to replace in it for a hybrid flow, and for one whose step fails.

    `steps` are all of its steps; `remote` those that the hybrid sends to Batch.
    """

    name: str
    text: str
    hybrid: Sequence[tuple[str, str]]
    broken: tuple[str, str]
    steps: Sequence[str]
    remote: Sequence[str]
    words: Sequence[str] = ()

    @property
    def hybrid_text(self) -> str:
        text = self.text
        for old, new in self.hybrid:
            assert old in text
            text = text.replace(old, new)
        return text

    @property
    def broken_text(self) -> str:
        assert self.broken[0] in self.text
        return self.text.replace(*self.broken)


DIGITS = Subject(
    "digits.py",
    (ROOT / "examples/digits.py").read_text(),
    hybrid=[
        ("from engine import", "from engine import batch,"),
        ("    @retry(", "    @batch(memory=2048)\n    @retry("),
    ],
    broken=("        ranked =", '        raise RuntimeError("broken")\n        ranked ='),
    steps=("start", "score", "choose", "end"),
    remote=("score",),
)


@dataclass
class Shows:
    """Runs of one subject in `folder`, with Batch and S3 of `env`."""

    folder: Path
    env: Mapping[str, str]
    s3_url: str
    queue: str
    subject: Subject
    told: list[str] = field(default_factory=list)

    def all(self, *, hybrid: bool = True) -> list[str]:
        """Run all shows; return a line for each.

        Raises:
            AssertionError: one of them does not hold.
        """
        local = self._local()
        self._everything_in_batch(local)
        if hybrid:
            self._hybrid(local)
        self._resumed(local, first=("--with", "batch"), then=())
        self._resumed(local, first=(), then=("--with", "batch"))
        return self.told

    # -- the shows -------------------------------------------------------------------------------

    def _local(self) -> Digests:
        began = time.monotonic()
        place = str(self.folder / "local")
        self._write(self.subject.text)
        self._done("run", self.subject.name, *self.subject.words, datastore=place)
        found = self._digests(place)
        self._tell(f"local run: {_count(found)}", began)
        return found

    def _everything_in_batch(self, local: Digests) -> None:
        began = time.monotonic()
        run_id = self._run("run", self.subject.name, *self.subject.words, "--with", "batch")
        self._same(local)
        jobs = self._jobs(run_id)
        assert sum(jobs.values()) == sum(map(len, local.values())), jobs
        assert set(jobs) == set(self.subject.steps), jobs
        self._tell(f"--with batch: {_listed(jobs)} ran as jobs, {_equal(local)}", began)

    def _hybrid(self, local: Digests) -> None:
        began = time.monotonic()
        self._write(self.subject.hybrid_text)
        run_id = self._run("run", self.subject.name, *self.subject.words)
        self._same(local)
        jobs = self._jobs(run_id)
        assert jobs == {step: len(local[step]) for step in self.subject.remote}, jobs
        self._tell(f"hybrid: {_listed(jobs)} ran as jobs, the rest here, {_equal(local)}", began)

    def _resumed(self, local: Digests, *, first: Sequence[str], then: Sequence[str]) -> None:
        began = time.monotonic()
        name = self.subject.name
        self._write(self.subject.broken_text)
        said = self._aflow("run", name, *self.subject.words, *first, datastore=self.s3_url)
        assert said.code == 1, said
        failed = _run_id(said)
        self._write(self.subject.text)
        run_id = self._run("resume", name, "--origin-run-id", failed, *then)
        self._same(local)
        before, after = self._jobs(failed), self._jobs(run_id)
        assert bool(before) == bool(first), before
        assert bool(after) == bool(then), after
        reused = sum(map(len, local.values())) - sum(after.values()) if then else None
        told = f"{_listed(before) or 'no tasks'} ran as jobs before it failed, "
        told += f"{_listed(after) or 'no tasks'} in the resumed run"
        if reused is not None:
            assert reused > 0, after
            told += f", which reused {reused}"
        where = ("Batch", "here") if first else ("here", "Batch")
        self._tell(f"failed {where[0]}, resumed {where[1]}: {told}, {_equal(local)}", began)

    # -- what they stand on ----------------------------------------------------------------------

    def _tell(self, line: str, began_s: float) -> None:
        self.told.append(f"{line} ({time.monotonic() - began_s:.1f} s)")

    def _write(self, text: str) -> None:
        (self.folder / self.subject.name).write_text(text)

    def _aflow(self, *words: str, datastore: str) -> Said:
        env = {**self.env, "AFLOW_DATASTORE": datastore}
        return aflow(*words, cwd=self.folder, env=env, limit_s=LIMIT_S)

    def _done(self, *words: str, datastore: str) -> Said:
        said = self._aflow(*words, datastore=datastore)
        assert said.code == 0, said
        return said

    def _run(self, *words: str) -> str:
        return _run_id(self._done(*words, "--max-workers", "64", datastore=self.s3_url))

    def _digests(self, datastore: str) -> Digests:
        return digests(partial(self._done, datastore=datastore), self.subject)

    def _same(self, local: Digests) -> None:
        remote = self._digests(self.s3_url)
        for step in self.subject.steps:
            assert remote[step] == local[step], f"step {step} left something else"

    def _jobs(self, run_id: str) -> dict[str, int]:
        """How many tasks of a run Batch itself says it ran, and that they succeeded, by step."""
        client = boto3.client(
            "batch",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            region_name=self.env["AWS_DEFAULT_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        )
        found: dict[str, int] = {}
        pages = client.get_paginator("list_jobs")
        for state in _ENDED:
            for page in pages.paginate(jobQueue=self.queue, jobStatus=state):
                for job in page["jobSummaryList"]:
                    if job["jobName"].startswith(f"{run_id}-"):
                        step = job["jobName"].split("-")[1]
                        size = (job.get("arrayProperties") or {}).get("size", 1)
                        found[step] = found.get(step, 0) + size
        client.close()
        return found


def digests(done: Callable[..., Said], subject: Subject) -> Digests:
    """Of the latest run, by step, of each of its tasks, by artifact; `done` runs a command."""
    found: Digests = {}
    for step in subject.steps:
        tasks = json.loads(done("dump", f"@latest/{step}", "--json").out)["tasks"]
        found[step] = [{n: a["sha"] for n, a in task["artifacts"].items()} for task in tasks]
    return found


@contextmanager
def dev_stack(folder: Path, servers: Path | None = None) -> Iterator[dict[str, str]]:
    """Run `aflow dev up`, and yield the variables of `aflow dev env`.

    Args:
        folder: of the commands.
        servers: where the servers are, and stay; default: in `folder`, until the block ends.
    """
    place = str((servers or folder / "dev").absolute())
    home = {"XDG_CACHE_HOME": str(folder / "cache"), "PATH": os.environ["PATH"]}
    up = aflow("dev", "up", "--folder", place, cwd=folder, env=home)
    assert up.code == 0, up
    try:
        said = aflow("dev", "env", "--json", "--folder", place, cwd=folder, env=home)
        yield {**home, **json.loads(said.out)}
    finally:
        if servers is None:
            aflow("dev", "down", "--folder", place, cwd=folder, env=home)


def _run_id(said: Said) -> str:
    """The run that a command began; one that it goes on from is named before it."""
    found = re.findall(r"[A-Za-z]\w*/([0-9A-HJKMNP-TV-Z]{16})\b", said.err + said.out)
    assert found, said
    return str(found[-1])


def _count(digests: Digests) -> str:
    artifacts = sum(len(task) for tasks in digests.values() for task in tasks)
    return f"{sum(map(len, digests.values()))} tasks, {artifacts} artifacts"


def _equal(local: Digests) -> str:
    return f"{_count(local)} equal to the local run's"


def _listed(jobs: Mapping[str, int]) -> str:
    return " + ".join(f"{count} {step}" for step, count in jobs.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="of the servers; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, dev_stack(Path(name), options.folder) as env:
        url = f"s3://aflow-dev/shows-{os.getpid()}"
        for line in Shows(Path(name), env, url, env["AFLOW_BATCH_QUEUE"], DIGITS).all():
            sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
