"""A flow that is killed and resumed, and the oracle of DESIGN.md section 3 over what is left.

Runs are processes of the command line, in a directory of their own. The journals, decoded here, are
asked; what the tasks themselves noted, a line for each execution, has to agree.
"""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engine.cli.main import invoke
from engine.scheduler.journal import RunBeganRecord, RunDoneRecord, SucceededRecord, decode
from engine.stores.journals import JournalReader, run_holder
from engine.stores.layout import open_layout
from engine.stores.manifest import Manifest
from tests.house.leaks import MARK, marked

ROOT = Path(__file__).parents[2]
ORPHANS_MAX_S = 2.0
COMMAND = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]

FLOW = """
import os
import random
import time
from engine import FlowSpec, current, step


def ran():
    line = f"{{current.run_id}} {{current.step_name}}/{{current.task_id}}\\n"
    fd = os.open("ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, line.encode())
    os.close(fd)
    print(line)


class Nested(FlowSpec):
    @step
    def start(self):
        ran()
        self.large = random.Random(7).randbytes({large_bytes})
        self.outer = [bytes([i]) * 3000 for i in range({outer})]
        self.next(self.split, foreach="outer")

    @step
    def split(self):
        ran()
        self.seed = self.input
        self.inner = list(range({inner}))
        self.next(self.leaf, foreach="inner")

    @step
    def leaf(self):
        ran()
        time.sleep({nap_s})
        self.small = self.input
        self.blob = bytes((self.input * n + self.seed[0]) % 251 for n in range(4000))
        self.next(self.gather)

    @step
    def gather(self, inputs):
        ran()
        self.all = [len(i.blob) + i.small for i in inputs]
        self.next(self.join)

    @step
    def join(self, inputs):
        ran()
        self.total = sum(sum(i.all) for i in inputs)
        self.next(self.end)

    @step
    def end(self):
        ran()
"""

Digests = dict[tuple[str, str], dict[str, str]]
"""Of each task, (step, id), the digest of each of its artifacts."""


@dataclass
class RunFound:
    """What a run's journal says."""

    run_id: str
    began: RunBeganRecord | None = None
    commits: list[SucceededRecord] = field(default_factory=list)
    done: RunDoneRecord | None = None

    @property
    def committed(self) -> set[str]:
        return {str(c.task) for c in self.commits}

    @property
    def digests(self) -> Digests:
        found = {}
        for commit in self.commits:
            entries = Manifest.unpack(commit.manifest).artifacts
            found[commit.task.step, commit.task.task_id] = {n: e.sha for n, e in entries.items()}
        return found


@dataclass
class Tally:
    """What many trials add up to."""

    trials: int = 0
    kills: int = 0
    double_commits: int = 0
    rerun: int = 0
    orphans: int = 0
    committed: int = 0
    reused: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        for name in ("trials", "kills", "double_commits", "rerun", "orphans", "committed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reused += other.reused
        self.problems += other.problems

    def counts(self) -> dict[str, int]:
        """What there is to count, in words."""
        return {
            "kills": self.kills,
            "double commits": self.double_commits,
            f"processes left after {ORPHANS_MAX_S:.0f} s": self.orphans,
            "tasks committed before a kill": self.committed,
            "of them run again": self.rerun,
        }

    def __str__(self) -> str:
        return (
            f"{self.trials} trials, {self.kills} kills, {self.double_commits} double commits, "
            f"{self.orphans} orphans after {ORPHANS_MAX_S:.0f} s, {self.committed} tasks committed "
            f"before a kill, {self.reused} of them reused, {self.rerun} run again, "
            f"{len(self.problems)} problems"
        )


class Site:
    """A directory with the flow and its datastore."""

    nap_s = 0.0  # how long a leaf takes beside its work
    large_bytes = 0  # of an artifact of the first step
    limit_s = 60.0  # of a command

    def __init__(self, folder: Path, *, outer: int = 2, inner: int = 17) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        more = {"nap_s": self.nap_s, "large_bytes": self.large_bytes}
        (folder / "nested.py").write_text(FLOW.format(outer=outer, inner=inner, **more))
        self._marks: dict[str, float] = {}

    @property
    def store(self) -> Path:
        """The datastore's directory."""
        return self.folder / "store"

    @property
    def variables(self) -> Mapping[str, str]:
        """What leads a process to the datastore."""
        return {"AFLOW_DATASTORE": str(self.store)}

    # -- processes ---------------------------------------------------------------------------

    def begin(self, words: Sequence[str], **variables: str) -> "subprocess.Popen[str]":
        mark = f"{self.folder} {len(self._marks)}"
        self._marks[mark] = float("inf")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AFLOW_")}
        mine = {"PYTHONPATH": str(ROOT), **self.variables, MARK: mark}
        with (self.folder / "said").open("w") as said:
            return subprocess.Popen(
                [*COMMAND, *words, "--max-workers", "2"],
                cwd=self.folder,
                env={**kept, **mine, **variables},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                text=True,
            )

    def call(self, words: Sequence[str], **variables: str) -> int:
        """Run a command to its end, whatever that is, and return its exit code."""
        process = self.begin(words, **variables)
        try:
            code = process.wait(timeout=self.limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        self.ended()
        return code

    def ended(self) -> None:
        """Note that the last process is gone: what it has started may live on for a moment."""
        self._marks[list(self._marks)[-1]] = time.monotonic() + ORPHANS_MAX_S

    @property
    def next_words(self) -> list[str]:
        """What a user does now: resume the latest run, in one of two ways, or start the first."""
        runs = [run for run in self.runs() if run.began]
        if not runs:
            return ["run", "nested.py"]
        return ["resume"] if len(runs) % 2 else ["resume", runs[-1].run_id]

    def orphans(self) -> list[str]:
        """The processes that have outlived their command for longer than they may."""
        found: list[str] = []
        for mark, until in self._marks.items():
            while (alive := marked(mark)) and time.monotonic() < until:
                time.sleep(0.01)
            found += alive.values()
        return found

    # -- what is left ------------------------------------------------------------------------

    def runs(self) -> list[RunFound]:
        """Every run there is, oldest first."""
        folder = self.store / "runs" / "Nested"
        names = sorted(os.listdir(folder)) if folder.exists() else []
        return [_run_of(folder / name) for name in names]

    def executed(self) -> list[tuple[str, str]]:
        """(run, task) for each time that a task's code ran."""
        ran = self.folder / "ran"
        lines = ran.read_text().splitlines() if ran.exists() else []
        return [(run, task) for run, task in (line.split() for line in lines)]

    def said(self) -> str:
        return (self.folder / "said").read_text()[-2000:]

    def verdict(self, expected: Digests) -> Tally:
        """Hold what is left against the oracle. The last command has ended well."""
        runs, tally = self.runs(), Tally(trials=1)
        by_id = {run.run_id: run for run in runs}
        executed = self.executed()
        for run in runs:
            twice = len(run.commits) - len(run.committed)
            tally.double_commits += twice
            again = {task for of, task in executed if of == run.run_id}
            tally.rerun += len(again & _committed_before(run, by_id))
        last = runs[-1]
        before = _committed_before(last, by_id)
        tally.committed = len(before)
        tally.reused = len(before & {str(c.task) for c in last.commits if c.reused})
        if last.done is None or last.done.status != "succeeded":
            tally.problems.append(f"the last run did not succeed: {last.done}")
        if last.digests != expected:
            tally.problems.append("the artifacts differ from those of an undisturbed run")
        tally.orphans = len(self.orphans())
        tally.problems += self._remains()
        for count, what in (
            (tally.double_commits, "double commits"),
            (tally.rerun, "committed tasks were run again"),
            (tally.committed - tally.reused, "committed tasks were not reused"),
            (tally.orphans, "processes were left"),
        ):
            if count:
                tally.problems.append(f"{count} {what}")
        return tally

    def _remains(self) -> Iterator[str]:
        """Files and locks that should not be there, and what fsck finds."""
        known = {"format", ".gitignore", "blobs", "runs", "packages", "metadata.db"}
        for name in sorted(os.listdir(self.store)):
            if name.removesuffix("-wal").removesuffix("-shm") not in known:
                yield f"{name} was left in the datastore"
        yield from (f"blobs/tmp/{name} was left" for name in os.listdir(self.store / "blobs/tmp"))
        layout = open_layout(self.store)
        for run_id in layout.run_ids("Nested"):
            if run_holder(str(layout.lock("Nested", run_id))):
                yield f"the lease of {run_id} is still held"
            names = set(os.listdir(layout.run("Nested", run_id)))
            if strangers := names - {"journal", "log", "lock", "listed", "indexed"}:
                yield f"{strangers} were left in run {run_id}"
        with redirect_stdout(io.StringIO()) as out:
            code = invoke(["fsck", "--read-data", "--json", "--datastore", str(self.store)])
        if code or json.loads(out.getvalue())["damages"]:
            yield f"fsck ended with {code}: {out.getvalue()}"


def _committed_before(run: RunFound, runs: dict[str, RunFound]) -> set[str]:
    """The tasks that a run's origin has committed, or that one's origin, and so on."""
    found: set[str] = set()
    while run.began and run.began.origin_run_id:
        run = runs[run.began.origin_run_id]
        found |= run.committed
    return found


def _run_of(folder: Path) -> RunFound:
    found = RunFound(folder.name)
    if not (folder / "journal").exists():
        return found
    with JournalReader(str(folder / "journal")) as journal:
        for _, payload in journal.scan():
            match decode(payload):
                case RunBeganRecord() as began:
                    found.began = began
                case SucceededRecord() as commit:
                    found.commits.append(commit)
                case RunDoneRecord() as done:
                    found.done = done
    return found


@dataclass
class Undisturbed:
    """A run without faults: what its artifacts are, how long it takes, what it leaves."""

    site: Site
    digests: Digests = field(default_factory=dict)
    took_s: float = 0.0

    @classmethod
    def run(cls, site: Site) -> "Undisturbed":
        began = time.monotonic()
        code = site.call(["run", "nested.py"])
        took_s = time.monotonic() - began
        assert code == 0, site.said()
        return cls(site, site.runs()[-1].digests, took_s)

    @cached_property
    def frames(self) -> int:
        """Appends to its journal, the head of the file among them."""
        journal = next((self.site.store / "runs" / "Nested").glob("*/journal"))
        with JournalReader(str(journal)) as reader:
            return 1 + sum(1 for _ in reader.scan())

    @cached_property
    def blobs(self) -> int:
        return sum(1 for _ in (self.site.store / "blobs").glob("??/*"))
